// The cluster as the master tells it: a copy that the event stream keeps.

const kinds = {
  agent: "agents", framework: "frameworks", task: "tasks", offer: "offers", role: "roles", plugin: "plugins",
};
const keyOf = { agent: (a) => a.id, framework: (f) => f.id, task: (t) => `${t.framework_id} ${t.id}`, offer: (o) => o.id, role: (r) => r.name, plugin: (p) => `${p.host || ""} ${p.id}` };

class Store {
  constructor() {
    this.empty();
    this.ready = false; // the snapshot is whole
    this.connected = false;
    this.why = "";
    this.listeners = new Set();
    this.dirty = new Set();
    this.pending = false;
  }

  empty() {
    for (const k of Object.values(kinds)) this[k] = new Map();
    this.tasksOfAgent = new Map();
    this.tasksOfFramework = new Map();
  }

  // on calls f with the set of what changed, at most a few times a second. It
  // returns how to end that.
  on(f) {
    this.listeners.add(f);
    return () => this.listeners.delete(f);
  }

  changed(kind) {
    this.dirty.add(kind);
    if (this.pending) return;
    this.pending = true;
    setTimeout(() => requestAnimationFrame(() => {
      this.pending = false;
      const dirty = this.dirty;
      this.dirty = new Set();
      for (const f of [...this.listeners]) f(dirty);
    }), this.ready ? 200 : 60);
  }

  start() {
    let wait = 500;
    const open = () => {
      const source = new EventSource("/v1/watch");
      let fresh = true;
      source.onmessage = (message) => {
        if (fresh) {
          // A new stream begins with everything: what is gone must go.
          fresh = false;
          this.empty();
          this.ready = false;
          this.connected = true;
          this.why = "";
          wait = 500;
        }
        for (const event of JSON.parse(message.data)) this.apply(event);
      };
      source.addEventListener("over", (message) => { this.why = message.data; });
      source.onerror = () => {
        source.close();
        this.connected = false;
        this.why ||= "the master does not answer";
        this.changed("connection");
        // A master that no longer leads sends its pages to the one that does.
        fetch("/ui/", { redirect: "manual" }).then((answer) => { if (answer.type === "opaqueredirect") location.reload(); }, () => {});
        setTimeout(open, wait * (0.5 + Math.random()));
        wait = Math.min(wait * 2, 15000);
      };
    };
    open();
  }

  apply(event) {
    for (const [kind, collection] of Object.entries(kinds)) {
      const value = event[kind];
      if (value !== undefined) {
        if (kind === "task") this.index(value);
        this[collection].set(keyOf[kind](value), value);
        this.changed(collection);
        return;
      }
      const removed = event[`${kind}_removed`];
      if (removed !== undefined) {
        if (kind === "task") {
          const key = `${removed.framework_id} ${removed.task_id}`;
          const task = this.tasks.get(key);
          if (task) {
            this.tasksOfAgent.get(task.agent_id)?.delete(key);
            this.tasksOfFramework.get(task.framework_id)?.delete(key);
          }
          this.tasks.delete(key);
        } else if (kind === "plugin") {
          for (const [key, p] of this.plugins) if (p.id === removed) this.plugins.delete(key);
        } else {
          this[collection].delete(removed);
        }
        this.changed(collection);
        return;
      }
    }
    if (event.snapshot_end) {
      this.ready = true;
      this.changed("all");
    }
  }

  index(task) {
    const key = keyOf.task(task);
    for (const [index, id] of [[this.tasksOfAgent, task.agent_id], [this.tasksOfFramework, task.framework_id]]) {
      if (!index.has(id)) index.set(id, new Map());
      index.get(id).set(key, task);
    }
  }

  frameworkName(id) { return this.frameworks.get(id)?.name || id; }
  agentName(id) { return this.agents.get(id)?.hostname || id; }
}

export const store = new Store();
