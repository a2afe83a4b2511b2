// The two connections that every test compares: one through the proxy, one to a plaintext server without a proxy.
// Both addresses and the marker prefix come from whoever started the servers (tests/e2e/test_node_driver.py).
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { MongoClient } from 'mongodb';

function given(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run these tests through tests/e2e/test_node_driver.py (make test)`);
  return value;
}

let made = 0;
/** A value that the scan after the tests looks for; never twice the same. */
export const marker = () => `${given('FIELDVEIL_TEST_MARKER')}${String(90000 + made++)}`;

/** Opens both clients for one test file; `sealed` goes through the proxy, `plain` does not. */
export function open(file) {
  const it = {};
  before(async () => {
    it.sealedClient = await new MongoClient(given('FIELDVEIL_TEST_PROXY_URI')).connect();
    it.plainClient = await new MongoClient(given('FIELDVEIL_TEST_PLAIN_URI')).connect();
    const db = given('FIELDVEIL_TEST_DB');
    it.sealedDb = it.sealedClient.db(db);
    it.plainDb = it.plainClient.db(db);
    // One collection per file, all under the same rules.
    it.sealed = it.sealedDb.collection(`patients_${file}`);
    it.plain = it.plainDb.collection(`patients_${file}`);
    await it.sealed.deleteMany({});
    await it.plain.deleteMany({});
  });
  after(async () => {
    await it.sealedClient?.close();
    await it.plainClient?.close();
  });
  /** Runs the operation on both collections and asserts the same result. */
  it.both = async (operation) => {
    const expected = await operation(it.plain, it.plainClient);
    const actual = await operation(it.sealed, it.sealedClient);
    assert.deepEqual(actual, expected);
    return actual;
  };
  return it;
}

export const patient = (_id, changes = {}) => ({
  _id,
  nhs_number: marker(),
  mrn: marker(),
  postcode: marker(),
  date_of_birth: new Date(Date.UTC(1950 + (made % 50), made % 12, 1 + (made % 28))),
  notes: marker(),
  contacts: [{ kind: 'mobile', phone: marker() }, { kind: 'home', phone: marker() }],
  address: { line1: marker(), city: 'Leeds' },
  allergies: [marker(), marker()],
  ward: 'A1',
  visits: 3,
  ...changes,
});
