// What the control server knows: the machines that are not seen from here, and its word about a node.

import { $, make, replace, shortName } from "./dom.js";
import { age, at } from "./words.js";

export function showUnseen(answer) {
  $("unseen-part").hidden = !answer?.as_of;
  if (!answer?.as_of) return;
  const more = answer.known - answer.seen - answer.unseen.length;
  replace(
    $("unseen-count"),
    `seeing ${answer.seen} of ${answer.known}, as the control server knew them `,
    age(answer.as_of, "", " ago"),
  );
  $("unseen-error").hidden = !answer.error;
  $("unseen-error").textContent = answer.error ? `It gives no usable answer now: ${answer.error}` : "";
  replace(
    $("unseen"),
    ...answer.unseen.map((machine) =>
      make(
        "li",
        { "data-key": machine.id },
        make("span", { title: machine.dns_name }, shortName(machine.hostname)),
        make("span", {}, machine.why),
        make("span", { class: "quiet" }, ...connected(machine.control)),
      ),
    ),
    answer.unseen.length ? null : make("li", { class: "empty" }, "This monitor sees all of them."),
    more > 0 ? make("li", { class: "quiet" }, `and ${more.toLocaleString()} more`) : null,
  );
}

function connected(control) {
  if (control.online) return ["connected to it"];
  if (control.last_seen) return ["last connected ", age(control.last_seen, "", " ago")];
  return control.online === false ? ["not connected to it"] : [];
}

// Rows of a node's facts: name and value; null where there is nothing to say.
export function controlRows(control) {
  if (!control) return [];
  return [
    ["control server", connected(control)],
    ["update", control.update_available ? "available" : null],
    ["key expiry", control.key_expiry_disabled ? "switched off" : null],
    ["approval", control.approved === false ? "waits for an administrator" : null],
    ["ephemeral", control.ephemeral ? "leaves the tailnet when it goes offline" : null],
    ["routes pending", control.routes_pending.join(", ")],
    ["routes advertised", (control.routes_advertised ?? []).join(", ")],
    ["created", control.created ? at(control.created) : null],
  ];
}
