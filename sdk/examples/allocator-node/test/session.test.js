'use strict';
const assert = require('node:assert/strict');
const { test } = require('node:test');
const { Session } = require('../lib/session');

// cluster is a session with two frameworks, in the roles a and a/b, that was
// told of one agent with 4 CPUs, one of them reserved to a/b.
function cluster(begin = {}) {
  const sent = [];
  const session = new Session('7', { firstDecision: '5', batchIntervalMs: '0', minRefuseMs: '0', maxDecisionsPerSecond: '0', minAllocatable: [], ...begin }, [], (m) => sent.push(m));
  let next = 1;
  const tell = (events, more) => {
    const list = events.map(([event, value]) => ({ event, [event]: value }));
    session.apply({ definitions: [], events: list, firstEvent: String(next), decisionsSeen: '0', ...more });
    next += events.length;
  };
  const framework = (number, role) => ['framework', {
    number, id: `f${number}`, name: '', roles: [role], suppressed: [], capabilities: 0, active: true, settings: [],
  }];
  const kind = (number, reservations) => ['kind', { number, name: 'cpus', type: 'KIND_TYPE_SCALAR', reservations, copy: '0' }];
  tell([
    kind(1, []), kind(2, [{ role: 'a/b' }]),
    ['role', { number: 1, name: 'a', weight: '1000', limit: null }], ['role', { number: 2, name: 'a/b', weight: '1000', limit: null }],
    framework(1, 1), framework(2, 2),
    ['agent', { number: 1, id: 'agent', active: true, attributes: [], total: { kinds: [1, 2], amounts: ['3000', '1000'] }, holdingsSet: true, holdings: [] }],
  ], { snapshotEnd: true });
  const offers = () => {
    session.allocate();
    return sent.splice(0).flatMap((m) => m.decisions ?? []).map(({ number, offer: o }) => `${number}: ${o.quantities.kinds}=${o.quantities.amounts} to ${o.framework}`);
  };
  const released = (frameworkNumber, role, kinds, amounts, refuseMs = '0') => ['released', {
    agent: 1, framework: frameworkNumber, role, quantities: { kinds, amounts }, refuseMs, declined: false,
  }];
  return { session, sent, tell, offers, released };
}

test('all that is free and that it may have goes to one; what is reserved to its role, to the other', (t) => {
  const { session, sent, offers } = cluster();
  t.after(() => session.close());
  assert.deepEqual(sent[0], { session: '7', eventsSeen: '7', ready: true });
  assert.deepEqual(offers(), ['5: 1=3000 to 1', '6: 2=1000 to 2']);
  assert.deepEqual(offers(), []);
});

test('a filter keeps what was refused, and a part of it, until a revive', (t) => {
  const { session, tell, offers, released } = cluster();
  t.after(() => session.close());
  offers();
  tell([released(1, 1, [1], ['3000'], '60000')]);
  assert.deepEqual(offers(), ['7: 1=3000 to 2']);
  tell([released(2, 2, [1], ['2000'], '60000')]);
  assert.deepEqual(offers(), []);
  tell([['revived', { framework: 1, roles: [1] }]]);
  assert.deepEqual(offers(), ['8: 1=2000 to 1']);
});

test('who suppresses offers gets none', (t) => {
  const { session, tell, offers, released } = cluster();
  t.after(() => session.close());
  offers();
  tell([['suppressed', { framework: 1, roles: [1] }], ['suppressed', { framework: 2, roles: [2] }], released(1, 1, [1], ['3000'])]);
  assert.deepEqual(offers(), []);
  tell([['revived', { framework: 2, roles: [2] }]]);
  assert.deepEqual(offers(), ['7: 1=3000 to 2']);
});

test('limits hold for the role and those above it, with what is reserved', (t) => {
  const { session, tell, offers, released } = cluster();
  t.after(() => session.close());
  offers();
  tell([
    ['role', { number: 1, name: 'a', weight: '1000', limit: { names: ['cpus'], thousandths: ['2500'] } }],
    released(1, 1, [1], ['3000']), released(2, 2, [2], ['1000']),
  ]);
  // One of the 2.5 is what is reserved to a/b, whoever holds it.
  assert.deepEqual(offers().map((o) => o.replace(/.*: /, '')).sort(), ['1=1500 to 1', '2=1000 to 2']);
});

test('a refused decision brings the truth, and later ones are added to it', (t) => {
  const { session, tell, offers } = cluster();
  t.after(() => session.close());
  offers();
  tell([['refused', {
    decision: '5',
    agent: { number: 1, id: 'agent', active: true, attributes: [], total: { kinds: [1, 2], amounts: ['2000', '1000'] }, holdingsSet: true, holdings: [] },
  }]]);
  assert.deepEqual(offers(), []); // the agent is left alone for a moment
  session.agents.get(1).until = 0;
  session.allDirty();
  assert.deepEqual(offers(), ['7: 1=2000 to 1']);
});

test('an agent that comes back holds what is under way, too', (t) => {
  const { session, tell, offers } = cluster();
  t.after(() => session.close());
  const made = offers();
  assert.ok(made.length > 0);
  tell([['agent', { number: 1, id: 'agent', active: true, attributes: [], total: { kinds: [1, 2], amounts: ['3000', '1000'] }, holdingsSet: true, decisionsSeen: '0', holdings: [] }]]);
  assert.deepEqual(offers(), []);
});

test('events twice, about the unknown, or of an unknown form do no harm', (t) => {
  const { session, tell, offers, released } = cluster();
  t.after(() => session.close());
  offers();
  tell([released(1, 1, [1], ['3000']), released(1, 1, [1], ['3000']), released(9, 9, [1], ['1']), ['weather', {}], [undefined, {}]]);
  assert.equal(session.seen, '12');
  assert.deepEqual(offers(), ['7: 1=3000 to 1']);
  tell([['agentRemoved', { number: 1 }], ['agentRemoved', { number: 1 }], ['frameworkRemoved', { number: 1 }]]);
  assert.deepEqual(offers(), []);
  assert.equal(session.total.get('cpus'), 0);
});

test('no more decisions than the core takes, and none while it does not read', (t) => {
  const slow = cluster({ maxDecisionsPerSecond: '2' });
  t.after(() => slow.session.close());
  assert.deepEqual(slow.offers(), ['5: 1=3000 to 1']);
  const deaf = cluster();
  t.after(() => deaf.session.close());
  deaf.session.send = (m) => { deaf.sent.push(m); return false; };
  deaf.sent.length = 0;
  deaf.tell([]);
  deaf.tell([]);
  assert.equal(deaf.sent.length, 1);
  deaf.session.resume();
  assert.equal(deaf.sent.length, 2);
});
