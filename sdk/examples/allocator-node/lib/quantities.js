'use strict';
// Amounts of resources, as a Map from a kind's number to its value: a scalar's
// thousandths, a list of ranges [begin, end], sorted and apart, or a Set of a
// set's items. What is empty is not in the map. Values are never changed.

const SCALAR = 'KIND_TYPE_SCALAR';
const RANGES = 'KIND_TYPE_RANGES';

// parse reads the form on the wire. It throws when there is none.
function parse(message, kinds) {
  const out = new Map();
  const amounts = (message?.amounts ?? []).map(Number);
  let at = 0;
  const next = () => {
    if (at >= amounts.length) throw new Error('quantities end too soon');
    return amounts[at++];
  };
  for (const number of message?.kinds ?? []) {
    const kind = kinds.get(number);
    if (!kind) throw new Error(`kind ${number} was never defined`);
    let value;
    if (kind.type === SCALAR) {
      value = next();
    } else if (kind.type === RANGES) {
      value = [];
      for (let n = next(), end = 0; n > 0; n--) {
        const begin = end + next();
        end = begin + next();
        value.push([begin, end]);
      }
    } else {
      value = new Set();
      for (let n = next(); n > 0; n--) value.add(next());
    }
    if (!empty(value)) out.set(number, out.has(number) ? plus(out.get(number), value) : value);
  }
  return out;
}

// format writes the form on the wire.
function format(quantities) {
  const message = { kinds: [], amounts: [] };
  for (const number of [...quantities.keys()].sort((a, b) => a - b)) {
    const value = quantities.get(number);
    message.kinds.push(number);
    if (typeof value === 'number') {
      message.amounts.push(value);
    } else if (Array.isArray(value)) {
      message.amounts.push(value.length);
      let last = 0;
      for (const [begin, end] of value) {
        message.amounts.push(begin - last, end - begin);
        last = end;
      }
    } else {
      message.amounts.push(value.size, ...[...value].sort((a, b) => a - b));
    }
  }
  return message;
}

function empty(value) {
  if (typeof value === 'number') return value <= 0;
  return (Array.isArray(value) ? value.length : value.size) === 0;
}

function plus(a, b) {
  if (typeof a === 'number') return a + b;
  if (!Array.isArray(a)) return new Set([...a, ...b]);
  const out = [];
  for (const [begin, end] of [...a, ...b].sort((x, y) => x[0] - y[0])) {
    const last = out[out.length - 1];
    if (last && begin <= last[1] + 1) last[1] = Math.max(last[1], end);
    else out.push([begin, end]);
  }
  return out;
}

function minus(a, b) {
  if (typeof a === 'number') return Math.max(0, a - b);
  if (!Array.isArray(a)) return new Set([...a].filter((x) => !b.has(x)));
  let left = a;
  for (const [begin, end] of b) {
    left = left.flatMap(([from, to]) => {
      if (end < from || begin > to) return [[from, to]];
      return [[from, begin - 1], [end + 1, to]].filter(([x, y]) => x <= y);
    });
  }
  return left;
}

// add returns a + b.
function add(a, b) {
  const out = new Map(a);
  for (const [kind, value] of b) out.set(kind, out.has(kind) ? plus(out.get(kind), value) : value);
  return out;
}

// subtract returns a - b; what b has beyond a counts for nothing.
function subtract(a, b) {
  const out = new Map(a);
  for (const [kind, value] of b) {
    if (!out.has(kind)) continue;
    const left = minus(out.get(kind), value);
    if (empty(left)) out.delete(kind);
    else out.set(kind, left);
  }
  return out;
}

// contains tells whether all of b is in a.
function contains(a, b) {
  for (const [kind, value] of b) {
    if (!a.has(kind) || !empty(minus(value, a.get(kind)))) return false;
  }
  return true;
}

// keep returns the part of a whose kinds pass.
function keep(a, passes) {
  return new Map([...a].filter(([kind]) => passes(kind)));
}

module.exports = { parse, format, add, subtract, contains, keep };
