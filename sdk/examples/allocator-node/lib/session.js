'use strict';
// One session with the core: a mirror of the cluster, fed by events, and what is
// decided upon it. mezzo/allocator/v1/allocator.proto is the contract, and says
// what the words mean.
//
// The policy: whoever holds the smallest share of the cluster, of the resource
// that it holds most of and divided by its role's weight, is offered all that is
// free on an agent and that it may have.
//
// Not in this example: guarantees (limits are kept), offer constraints (who has
// some declines), shared volumes (never offered), and revocation.

const Q = require('./quantities');

const REVOCABLE = 1;
const GPU = 2;
const REFINEMENT = 8;
const REGION_AWARE = 16;

const MAX_TIMER = 2 ** 31 - 1; // of setTimeout, in milliseconds
const DEFAULT_SMALLEST = [{ names: ['cpus'], thousandths: [10] }, { names: ['mem'], thousandths: [32000] }];

class Session {
  // send takes a FromAllocator and returns false when no more should be sent
  // until resume is called.
  constructor(number, begin, excluded, send) {
    Object.assign(this, { number, begin, send, excluded: new Set(excluded) });
    this.smallest = begin.minAllocatable.length ? begin.minAllocatable : DEFAULT_SMALLEST;
    this.kinds = new Map(); // by number, as are all of these
    this.roles = new Map();
    this.frameworks = new Map();
    this.agents = new Map();
    this.total = new Map(); // of the cluster, by name, in thousandths
    this.consumed = new Map(); // by the path of a role, then by name
    this.dirty = new Set(); // agents to look at
    this.inFlight = []; // decisions that the core has not answered for
    this.nextDecision = Number(begin.firstDecision) || 1;
    this.seen = '0';
    this.perSecond = Number(begin.maxDecisionsPerSecond) / 2 || Infinity;
    this.budget = this.perSecond;
    this.refilled = Date.now();
  }

  // apply takes in a batch. It throws when core and allocator no longer
  // understand each other.
  apply(batch) {
    for (const event of batch.definitions) this.event(event);
    for (const event of batch.events) this.event(event);
    if (!batch.snapshot && batch.events.length) this.seen = String(BigInt(batch.firstEvent) + BigInt(batch.events.length - 1));
    const handled = Number(batch.decisionsSeen);
    for (const { number, agent } of this.inFlight) if (number <= handled && this.agents.has(agent)) this.agents.get(agent).refusals = 0;
    this.inFlight = this.inFlight.filter((d) => d.number > handled);
    this.ready = this.ready || batch.snapshotEnd;
    this.owed = true;
    this.acknowledge();
    this.soon();
  }

  // acknowledge says how far events were applied; while the core does not read,
  // that waits.
  acknowledge() {
    if (!this.owed || this.blocked) return;
    this.owed = false;
    const first = this.ready && !this.saidReady;
    this.saidReady = this.ready;
    this.blocked = !this.send({ session: this.number, eventsSeen: this.seen, ready: first });
  }

  event({ event: what, ...of }) {
    const handler = this[`on_${what}`];
    if (handler) handler.call(this, of[what]); // others are counted and passed over
  }

  on_kind(k) {
    const reserved = k.reservations.map((r) => r.role);
    this.kinds.set(k.number, { ...k, reserved: reserved.length > 0, role: reserved[reserved.length - 1], refined: reserved.length > 1 });
  }

  on_role(r) {
    const role = this.roles.get(r.number) ?? {}; // clients point to it
    this.roles.set(r.number, Object.assign(role, { name: r.name, weight: Number(r.weight) / 1000 || 1, limit: r.limit }));
    this.allDirty();
  }

  on_framework(f) {
    const known = this.frameworks.get(f.number);
    const framework = known ?? { number: f.number, clients: new Map() };
    Object.assign(framework, { id: f.id, name: f.name, active: f.active, capabilities: f.capabilities });
    this.frameworks.set(f.number, framework);
    for (const role of f.roles) this.client(f.number, role);
    for (const [role, client] of framework.clients) {
      client.subscribed = f.roles.includes(role);
      client.suppressed = f.suppressed.includes(role);
      client.smallest = f.settings.find((s) => s.role === role)?.minAllocatable ?? [];
      if (!f.active || !client.subscribed) this.forgetFilters(client);
    }
    this.allDirty();
  }

  on_frameworkRemoved({ number }) {
    for (const client of this.frameworks.get(number)?.clients.values() ?? []) {
      this.forgetFilters(client);
      for (const agent of this.agents.values()) {
        if (agent.held.has(client)) this.release(agent, client, agent.held.get(client));
      }
    }
    this.frameworks.delete(number);
  }

  // The holdings are those after the decision seen: later ones are added to them.
  on_agent(a, seen = Number(a.decisionsSeen ?? 0)) {
    let agent = this.agents.get(a.number);
    if (!agent) this.agents.set(a.number, (agent = { number: a.number, held: new Map(), filters: [], total: new Map(), refusals: 0, until: 0 }));
    const attributes = JSON.stringify(a.attributes);
    if (agent.attributes !== undefined && agent.attributes !== attributes) agent.filters = [];
    Object.assign(agent, { id: a.id, active: a.active, region: a.region, attributes });
    this.setTotal(agent, Q.parse(a.total, this.kinds));
    if (a.holdingsSet) {
      for (const [client, held] of agent.held) this.release(agent, client, held);
      for (const h of a.holdings) this.hold(agent, this.client(h.framework, h.role), Q.parse(h.quantities, this.kinds));
      for (const d of this.inFlight) {
        if (d.number > seen && d.agent === a.number) this.hold(agent, d.client, d.quantities);
      }
    }
    this.soil(agent);
  }

  on_agentRemoved({ number }) {
    const agent = this.agents.get(number);
    if (!agent) return;
    for (const [client, held] of agent.held) this.release(agent, client, held);
    this.setTotal(agent, new Map());
    clearTimeout(agent.timer);
    this.agents.delete(number);
    this.dirty.delete(agent);
  }

  on_held(h) {
    const agent = this.agents.get(h.agent);
    if (agent) this.hold(agent, this.client(h.framework, h.role), Q.parse(h.quantities, this.kinds));
  }

  on_released(r) {
    const [agent, client] = [this.agents.get(r.agent), this.client(r.framework, r.role)];
    if (!agent || !client) return;
    const quantities = Q.parse(r.quantities, this.kinds);
    this.release(agent, client, quantities);
    this.filter(agent, client, quantities, Math.max(Number(r.refuseMs), r.declined ? Number(this.begin.minRefuseMs) : 0));
  }

  on_converted(c) {
    const agent = this.agents.get(c.agent);
    if (!agent) return;
    const [from, to] = [Q.parse(c.from, this.kinds), Q.parse(c.to, this.kinds)];
    const client = this.client(c.framework, c.role);
    this.setTotal(agent, Q.add(Q.subtract(agent.total, from), to));
    if (client && agent.held.has(client)) {
      this.release(agent, client, from);
      this.hold(agent, client, to);
    }
    this.soil(agent);
  }

  on_suppressed(s) {
    for (const role of s.roles) Object.assign(this.client(s.framework, role) ?? {}, { suppressed: true });
  }

  on_revived(r) {
    for (const role of r.roles) {
      const client = this.client(r.framework, role);
      if (!client) continue;
      client.suppressed = false;
      this.forgetFilters(client);
    }
    this.allDirty();
  }

  on_filter(f) {
    const [agent, client] = [this.agents.get(f.agent), this.client(f.framework, f.role)];
    if (agent && client) this.filter(agent, client, Q.parse(f.quantities, this.kinds), Number(f.remainingMs));
  }

  // A decision was not carried out: what the core says of the agent holds, and
  // the agent is left alone for a while.
  on_refused(r) {
    const decision = Number(r.decision);
    const refused = this.inFlight.find((d) => d.number === decision);
    this.inFlight = this.inFlight.filter((d) => d !== refused);
    if (r.agent) {
      this.on_agent(r.agent, Math.max(decision, Number(r.agent.decisionsSeen ?? 0)));
    } else if (refused && this.agents.has(refused.agent)) {
      this.release(this.agents.get(refused.agent), refused.client, refused.quantities);
    }
    const agent = this.agents.get(r.agent?.number ?? refused?.agent);
    if (!agent) return;
    agent.until = Date.now() + Math.min(5000, 50 * 2 ** agent.refusals++);
    this.wakeAt(agent, agent.until);
  }

  // client is a framework in one of its roles; undefined when one of them was
  // not told of.
  client(framework, role) {
    const [f, r] = [this.frameworks.get(framework), this.roles.get(role)];
    if (!f || !r) return undefined;
    if (!f.clients.has(role)) f.clients.set(role, { framework: f, number: role, held: new Map(), smallest: [] });
    const client = f.clients.get(role);
    client.role = r;
    return client;
  }

  hold(agent, client, quantities) {
    if (!client || quantities.size === 0) return;
    agent.held.set(client, Q.add(agent.held.get(client) ?? new Map(), quantities));
    this.account(client, quantities, 1);
  }

  // release gives back no more than is held.
  release(agent, client, quantities) {
    const held = agent.held.get(client) ?? new Map();
    const left = Q.subtract(held, quantities);
    if (left.size) agent.held.set(client, left);
    else agent.held.delete(client);
    this.account(client, Q.subtract(held, left), -1);
    this.soil(agent);
    this.limitsMoved();
  }

  // account brings the sums up to date by which shares and limits go.
  account(client, quantities, sign) {
    for (const [number, value] of quantities) {
      const kind = this.kinds.get(number);
      if (typeof value !== 'number') continue;
      client.held.set(kind.name, (client.held.get(kind.name) ?? 0) + sign * value);
      for (const role of lineage(client.role.name)) if (charges(role, kind)) this.consume(role, kind.name, sign * value);
    }
  }

  consume(role, name, amount) {
    if (!this.consumed.has(role)) this.consumed.set(role, new Map());
    const sums = this.consumed.get(role);
    sums.set(name, (sums.get(name) ?? 0) + amount);
  }

  // setTotal replaces what an agent has. What is reserved to a role counts
  // towards its limit, held or not.
  setTotal(agent, total) {
    for (const [quantities, sign] of [[agent.total, -1], [total, 1]]) {
      for (const [number, value] of quantities) {
        const kind = this.kinds.get(number);
        if (typeof value !== 'number') continue;
        this.total.set(kind.name, (this.total.get(kind.name) ?? 0) + sign * value);
        if (kind.reserved && !kind.revocable) for (const role of lineage(kind.role)) this.consume(role, kind.name, sign * value);
      }
    }
    agent.total = total;
  }

  filter(agent, client, quantities, ms) {
    if (ms <= 0 || quantities.size === 0 || !client.framework.active) return;
    const until = Date.now() + ms;
    agent.filters = agent.filters.filter((f) => f.client !== client || f.until > until || !Q.contains(quantities, f.quantities));
    agent.filters.push({ client, quantities, until });
    this.wakeAt(agent, until);
  }

  forgetFilters(client) {
    for (const agent of this.agents.values()) agent.filters = agent.filters.filter((f) => f.client !== client);
  }

  // wakeAt has an agent looked at when something about it has passed by itself.
  wakeAt(agent, at) {
    if (agent.timer && agent.wake <= at) return;
    clearTimeout(agent.timer);
    agent.wake = at;
    agent.timer = setTimeout(() => {
      agent.timer = undefined;
      agent.filters = agent.filters.filter((f) => f.until > Date.now());
      const next = Math.min(...agent.filters.map((f) => f.until));
      if (next < Infinity) this.wakeAt(agent, next);
      this.soil(agent);
      this.soon();
    }, Math.min(MAX_TIMER, Math.max(1, at - Date.now() + 1)));
  }

  soil(agent) {
    this.dirty.add(agent);
  }

  allDirty() {
    for (const agent of this.agents.values()) this.dirty.add(agent);
  }

  // limitsMoved has agents looked at again that a limit has kept back.
  limitsMoved() {
    if (![...this.roles.values()].some((r) => r.limit)) return;
    for (const agent of this.agents.values()) if (agent.limited) this.dirty.add(agent);
  }

  // soon collects what is freed for a moment, then decides.
  soon() {
    if (!this.ready || this.blocked || this.closed || this.timer || this.dirty.size === 0) return;
    this.timer = setTimeout(() => {
      this.timer = undefined;
      this.allocate();
    }, Number(this.begin.batchIntervalMs));
  }

  resume() {
    this.blocked = false;
    this.acknowledge();
    this.soon();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    for (const agent of this.agents.values()) clearTimeout(agent.timer);
  }

  // allocate offers what is free on the dirty agents.
  allocate() {
    const began = process.hrtime.bigint();
    const now = Date.now();
    this.budget = Math.min(this.perSecond, this.budget + (this.perSecond * (now - this.refilled)) / 1000);
    this.refilled = now;
    const clients = [...this.frameworks.values()].filter((f) => f.active)
      .flatMap((f) => [...f.clients.values()]).filter((c) => c.subscribed && !c.suppressed);
    const decisions = [];
    let considered = 0;
    for (const agent of this.dirty) {
      if (this.budget < 1) break;
      this.dirty.delete(agent);
      considered++;
      if (agent.active && now >= agent.until) this.serve(agent, clients, now, decisions);
    }
    const cycle = { durationNs: String(process.hrtime.bigint() - began), agentsConsidered: considered, offers: decisions.length };
    this.blocked = !this.send({ session: this.number, eventsSeen: this.seen, decisions, cycle });
    if (this.dirty.size) this.timer = setTimeout(() => { this.timer = undefined; if (!this.blocked) this.allocate(); }, 100);
  }

  serve(agent, clients, now, decisions) {
    agent.limited = false;
    agent.filters = agent.filters.filter((f) => f.until > now);
    let free = Q.keep(agent.total, (k) => !this.kinds.get(k).shared);
    for (const held of agent.held.values()) free = Q.subtract(free, held);
    for (const client of [...clients].sort((a, b) => this.share(a) - this.share(b))) {
      if (this.budget < 1) return void this.soil(agent);
      const offer = this.fit(agent, client, free);
      if (!offer || agent.filters.some((f) => f.client === client && Q.contains(f.quantities, offer))) continue;
      this.budget--;
      free = Q.subtract(free, offer);
      this.hold(agent, client, offer);
      const number = this.nextDecision++;
      this.inFlight.push({ number, agent: agent.number, client, quantities: offer });
      decisions.push({
        number: String(number),
        offer: { agent: agent.number, framework: client.framework.number, role: client.number, quantities: Q.format(offer) },
      });
    }
  }

  // fit returns what of the free resources a client may have, if that is worth
  // an offer.
  fit(agent, client, free) {
    const can = (capability) => (client.framework.capabilities & capability) !== 0;
    const gpus = [...agent.total.keys()].some((k) => this.kinds.get(k).name === 'gpus');
    if (gpus && this.begin.filterGpuResources && !can(GPU)) return undefined;
    if (agent.region && this.begin.region && agent.region !== this.begin.region && !can(REGION_AWARE)) return undefined;
    const offer = Q.keep(free, (number) => {
      const kind = this.kinds.get(number);
      if (kind.reserved && !lineage(client.role.name).includes(kind.role)) return false;
      return (!kind.revocable || can(REVOCABLE)) && (!kind.refined || can(REFINEMENT));
    });
    this.limit(agent, client, offer);
    const sums = new Map();
    for (const [number, value] of offer) {
      const { name } = this.kinds.get(number);
      if (typeof value === 'number') sums.set(name, (sums.get(name) ?? 0) + value);
    }
    const worth = (client.smallest.length ? client.smallest : this.smallest)
      .some((set) => set.names.length && set.names.every((name, i) => (sums.get(name) ?? 0) >= Number(set.thousandths[i])));
    return worth ? offer : undefined;
  }

  // limit takes from an offer what would be more than the role, or one above it,
  // may consume.
  limit(agent, client, offer) {
    const above = lineage(client.role.name);
    for (const role of this.roles.values()) {
      if (!role.limit || !above.includes(role.name)) continue;
      role.limit.names.forEach((name, i) => {
        let room = Number(role.limit.thousandths[i]) - (this.consumed.get(role.name)?.get(name) ?? 0);
        for (const [number, value] of offer) {
          const kind = this.kinds.get(number);
          if (kind.name !== name || typeof value !== 'number' || !charges(role.name, kind)) continue;
          let take = Math.max(0, Math.min(value, room));
          if (take < value && kind.indivisible) take -= take % (Number(kind.copy) || value);
          if (take < value) agent.limited = true;
          room -= take;
          if (take > 0) offer.set(number, take);
          else offer.delete(number);
        }
      });
    }
  }

  // share is the policy: the smallest is served first.
  share(client) {
    let most = 0;
    for (const [name, held] of client.held) {
      if (held > 0 && this.total.get(name) > 0 && !this.excluded.has(name)) most = Math.max(most, held / this.total.get(name));
    }
    return most / client.role.weight;
  }

  // explain answers ExplainRequest, in short.
  explain({ frameworkId, role }) {
    const framework = [...this.frameworks.values()].find((f) => f.id === frameworkId);
    if (!framework) return { known: false };
    const roles = [...framework.clients.values()].filter((c) => c.subscribed && (!role || c.role.name === role)).map((c) => {
      const filtered = [...this.agents.values()].filter((a) => a.filters.some((f) => f.client === c && f.until > Date.now())).length;
      let summary = `it has filters on ${filtered} of ${this.agents.size} agents; others may come first`;
      if (c.suppressed) summary = 'the framework has suppressed offers in this role; it has to revive them';
      if (!framework.active) summary = 'no scheduler of the framework is connected';
      return { role: c.role.name, suppressed: Boolean(c.suppressed), summary, frameworkShare: String(Math.round(this.share(c) * c.role.weight * 1e6)) };
    });
    return { known: true, roles };
  }
}

// lineage lists a role and those above it.
function lineage(path) {
  const steps = path.split('/');
  return steps.map((_, i) => steps.slice(0, i + 1).join('/'));
}

// charges tells whether what is held of a kind counts towards a role's limit
// besides what is reserved to it or below.
function charges(role, kind) {
  if (kind.revocable || kind.shared) return false;
  return !kind.reserved || !lineage(kind.role).includes(role);
}

module.exports = { Session };
