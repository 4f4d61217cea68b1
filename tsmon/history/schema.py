"""The tables of the embedded history and the migrations that made them: numbered, forward-only.

Append a migration; never change one that was released. `PRAGMA user_version` counts those that were run.

Since the second one: a node's spans lie beside each other, in order, so that a window of one node is one
short read whatever else the table holds; the nodes that are present have an index of their own, so that
removed ones cost nothing; numbers of nodes are never used again, since spans and latency point to them.
"""

APPLICATION_ID = 0x7473_6D6F  # "tsmo": tells our file from any other SQLite database

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE nodes (
        num INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        hostname TEXT NOT NULL,
        first_seen REAL NOT NULL,
        removed_at REAL,
        body BLOB NOT NULL
    );
    CREATE INDEX nodes_hostname ON nodes (hostname);
    CREATE TABLE spans (
        node INTEGER NOT NULL,
        state TEXT NOT NULL,
        start REAL NOT NULL,
        end REAL
    );
    CREATE INDEX spans_node ON spans (node, start);
    CREATE INDEX spans_end ON spans (end);
    CREATE TABLE observed (
        scope TEXT NOT NULL,
        start REAL NOT NULL,
        end REAL NOT NULL,
        PRIMARY KEY (scope, start)
    ) WITHOUT ROWID;
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        timestamp REAL NOT NULL,
        recorded_at REAL NOT NULL,
        event_type TEXT NOT NULL,
        severity TEXT NOT NULL,
        node_id TEXT,
        hostname TEXT,
        node_type TEXT,
        message TEXT NOT NULL,
        details TEXT NOT NULL
    );
    CREATE INDEX events_type ON events (event_type, id);
    CREATE INDEX events_severity ON events (severity, id);
    CREATE INDEX events_node ON events (node_id, id);
    CREATE INDEX events_hostname ON events (hostname, id);
    CREATE TABLE alerts (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        severity TEXT NOT NULL,
        state TEXT NOT NULL,
        hostname TEXT,
        resolved_at REAL,
        body BLOB NOT NULL
    );
    CREATE INDEX alerts_state ON alerts (state, id);
    CREATE TABLE latency (
        node INTEGER NOT NULL,
        time REAL NOT NULL,
        min_ms REAL,
        mean_ms REAL,
        max_ms REAL,
        loss REAL NOT NULL,
        path TEXT,
        PRIMARY KEY (node, time)
    ) WITHOUT ROWID;
    CREATE TABLE influx_outbox (
        id INTEGER PRIMARY KEY,
        created REAL NOT NULL,
        grid REAL,
        lines INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        payload BLOB NOT NULL
    );
    CREATE TABLE influx_quarantine (
        id INTEGER PRIMARY KEY,
        created REAL NOT NULL,
        line TEXT NOT NULL,
        error TEXT NOT NULL
    );
    CREATE TABLE notifications (
        id INTEGER PRIMARY KEY,
        channel TEXT NOT NULL,
        created REAL NOT NULL,
        body TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        next_try REAL NOT NULL DEFAULT 0,
        delivered_at REAL,
        failed TEXT
    );
    CREATE TABLE silences (
        id INTEGER PRIMARY KEY,
        created REAL NOT NULL,
        ends REAL,
        body TEXT NOT NULL
    );
    """,
    """
    CREATE TABLE nodes_2 (
        num INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        hostname TEXT NOT NULL,
        first_seen REAL NOT NULL,
        removed_at REAL,
        body BLOB NOT NULL
    );
    INSERT INTO nodes_2 (num, id, hostname, first_seen, removed_at, body)
        SELECT num, id, hostname, first_seen, removed_at, body FROM nodes;
    DROP TABLE nodes;
    ALTER TABLE nodes_2 RENAME TO nodes;
    CREATE INDEX nodes_hostname ON nodes (hostname);
    CREATE INDEX nodes_present ON nodes (id, num, first_seen) WHERE removed_at IS NULL;
    CREATE INDEX nodes_removed ON nodes (removed_at) WHERE removed_at IS NOT NULL;
    CREATE TABLE spans_2 (
        node INTEGER NOT NULL,
        start REAL NOT NULL,
        state TEXT NOT NULL,
        end REAL,
        PRIMARY KEY (node, start)
    ) WITHOUT ROWID;
    INSERT OR REPLACE INTO spans_2 (node, start, state, end)
        SELECT node, start, state, end FROM spans ORDER BY node, start, rowid;
    DROP TABLE spans;
    ALTER TABLE spans_2 RENAME TO spans;
    """,
    """
    CREATE TABLE bad_rows (
        id INTEGER PRIMARY KEY,
        found REAL NOT NULL,
        origin TEXT NOT NULL,
        reason TEXT NOT NULL,
        body TEXT NOT NULL
    );
    """,
    """
    CREATE TABLE notes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        node_id TEXT NOT NULL,
        start REAL NOT NULL,
        end REAL NOT NULL,
        planned INTEGER NOT NULL,
        created REAL NOT NULL,
        author TEXT NOT NULL,
        text TEXT NOT NULL
    );
    CREATE INDEX notes_end ON notes (end);
    """,
    """
    CREATE TABLE control_devices (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE services (
        num INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        first_seen REAL NOT NULL,
        removed_at REAL,
        body BLOB NOT NULL
    );
    CREATE INDEX services_removed ON services (removed_at) WHERE removed_at IS NOT NULL;
    CREATE TABLE service_spans (
        service INTEGER NOT NULL,
        start REAL NOT NULL,
        state TEXT NOT NULL,
        end REAL,
        PRIMARY KEY (service, start)
    ) WITHOUT ROWID;
    CREATE INDEX service_spans_end ON service_spans (end) WHERE end IS NOT NULL;
    """,
    """
    ALTER TABLE nodes ADD COLUMN predecessor TEXT;
    ALTER TABLE nodes ADD COLUMN joined REAL;
    ALTER TABLE nodes ADD COLUMN family TEXT;
    CREATE INDEX nodes_joined ON nodes (joined) WHERE predecessor IS NOT NULL;
    CREATE INDEX nodes_family ON nodes (family, removed_at) WHERE family IS NOT NULL;
    """,
)
