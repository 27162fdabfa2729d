'use strict';
// A self-signed certificate for the name localhost, which Node can use but not
// make: some twenty lines of DER, and no further package.

const crypto = require('node:crypto');

function der(tag, ...parts) {
  const body = Buffer.concat(parts);
  if (body.length < 128) return Buffer.concat([Buffer.from([tag, body.length]), body]);
  const length = [];
  for (let n = body.length; n > 0; n >>= 8) length.unshift(n & 255);
  return Buffer.concat([Buffer.from([tag, 128 + length.length, ...length]), body]);
}

const sequence = (...parts) => der(0x30, ...parts);
const oid = (hex) => der(0x06, Buffer.from(hex, 'hex'));
const bits = (unused, bytes) => der(0x03, Buffer.from([unused]), bytes);
const yes = der(0x01, Buffer.from([255]));
const time = (date) => der(0x18, Buffer.from(date.toISOString().replace(/[-:T]|\.\d+/g, '')));
const extension = (id, ...value) => sequence(oid(id), ...value.slice(0, -1), der(0x04, value[value.length - 1]));

// make returns a new key and its certificate: { key, cert } in PEM, and the
// certificate's DER.
function make() {
  const { privateKey, publicKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const algorithm = sequence(oid('2a8648ce3d040302')); // ecdsa-with-SHA256
  const name = sequence(der(0x31, sequence(oid('550403'), der(0x0c, Buffer.from('localhost'))))); // commonName
  const serial = crypto.randomBytes(16);
  serial[0] = (serial[0] & 0x3f) | 0x40; // positive, and no leading zero
  const body = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))), // version 3
    der(0x02, serial),
    algorithm,
    name,
    sequence(time(new Date(Date.now() - 60e3)), time(new Date(Date.now() + 10 * 365 * 86400e3))),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(
      extension('551d13', yes, sequence(yes)), // basicConstraints: a CA
      extension('551d0f', yes, bits(2, Buffer.from([0x84]))), // keyUsage: digitalSignature, keyCertSign
      extension('551d25', sequence(oid('2b06010505070301'))), // extKeyUsage: serverAuth
      extension('551d11', sequence(der(0x82, Buffer.from('localhost')))), // subjectAltName
    )),
  );
  const certificate = sequence(body, algorithm, bits(0, crypto.sign('sha256', body, privateKey)));
  return {
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    cert: `-----BEGIN CERTIFICATE-----\n${certificate.toString('base64').replace(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n`,
    der: certificate,
  };
}

module.exports = { make };
