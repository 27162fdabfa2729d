'use strict';
const assert = require('node:assert/strict');
const { test } = require('node:test');
const Q = require('../lib/quantities');

const kinds = new Map([[1, { type: 'KIND_TYPE_SCALAR' }], [2, { type: 'KIND_TYPE_RANGES' }], [3, { type: 'KIND_TYPE_SET' }]]);
const of = (kind, ...amounts) => Q.parse({ kinds: [kind], amounts: amounts.map(String) }, kinds);
const ports = (...ranges) => new Map(ranges.length ? [[2, ranges]] : []);

test('the form on the wire comes back as it was', () => {
  const message = { kinds: [1, 2, 3], amounts: [1500, 2, 31000, 9, 91, 0, 2, 4, 7] };
  const read = Q.parse({ ...message, amounts: message.amounts.map(String) }, kinds);
  assert.deepEqual(read, new Map([[1, 1500], [2, [[31000, 31009], [31100, 31100]]], [3, new Set([4, 7])]]));
  assert.deepEqual(Q.format(read), message);
});

test('what cannot be read is refused', () => {
  assert.throws(() => Q.parse({ kinds: [9], amounts: ['1'] }, kinds), /never defined/);
  assert.throws(() => Q.parse({ kinds: [2], amounts: ['2', '1', '1'] }, kinds), /too soon/);
});

test('ranges', () => {
  const all = ports([1, 10]);
  assert.deepEqual(Q.subtract(all, ports([4, 6])), ports([1, 3], [7, 10]));
  assert.deepEqual(Q.subtract(all, ports([1, 10])), ports());
  assert.deepEqual(Q.subtract(all, ports([0, 1], [9, 99])), ports([2, 8]));
  assert.deepEqual(Q.add(ports([1, 3], [7, 10]), ports([4, 6])), all);
  assert.ok(Q.contains(all, ports([2, 3], [5, 10])));
  assert.ok(!Q.contains(ports([1, 3], [5, 10]), ports([3, 5])));
});

test('scalars and sets', () => {
  assert.deepEqual(Q.subtract(of(1, 1500), of(1, 500)), of(1, 1000));
  assert.deepEqual(Q.subtract(of(1, 500), of(1, 1500)), new Map());
  assert.ok(Q.contains(of(1, 500), of(1, 500)) && !Q.contains(of(1, 500), of(1, 501)) && !Q.contains(new Map(), of(1, 1)));
  assert.deepEqual(Q.subtract(of(3, 2, 4, 7), of(3, 1, 4)), of(3, 1, 7));
  assert.deepEqual(Q.add(of(3, 1, 4), of(3, 1, 7)), of(3, 2, 4, 7));
});
