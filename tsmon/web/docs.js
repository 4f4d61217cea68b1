// The API's routes, read from its OpenAPI document.

import { $, make } from "./dom.js";

const document_ = await (await fetch(new URL("openapi.json", document.baseURI))).json();

const name = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(name).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `list of ${name(schema.items) || "anything"}`;
  if (schema.type === "object" && schema.additionalProperties)
    return `object of ${name(schema.additionalProperties) || "anything"}`;
  return schema.type ?? "anything";
};

function table(heads, rows) {
  return make(
    "div",
    { class: "wide", tabindex: "0", role: "region", "aria-label": heads.join(", ") },
    make(
      "table",
      {},
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))))),
    ),
  );
}

function route(path, operation) {
  const answers = Object.entries(operation.responses["200"]?.content ?? {});
  return make(
    "section",
    { id: operation.operationId },
    make("h2", {}, make("code", {}, `GET ${path}`)),
    make("p", {}, operation.summary),
    operation.parameters.length
      ? table(
          ["parameter", "takes"],
          operation.parameters.map((one) => [make("code", {}, one.name), one.description]),
        )
      : null,
    ...answers.map(([kind, content]) =>
      make("p", { class: "quiet" }, `${kind}: `, make("code", {}, name(content.schema))),
    ),
  );
}

function schema(title, found) {
  return make(
    "section",
    { id: `schema-${title}` },
    make("h3", {}, title),
    table(
      ["field", "type"],
      Object.entries(found.properties ?? {}).map(([field, type]) => [make("code", {}, field), name(type)]),
    ),
  );
}

$("routes").replaceChildren(
  ...Object.entries(document_.paths).map(([path, methods]) => route(path, methods.get)),
  make("h2", {}, "Schemas"),
  ...Object.entries(document_.components.schemas).map(([title, found]) => schema(title, found)),
);
