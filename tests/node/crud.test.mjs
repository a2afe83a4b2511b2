import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Binary, Decimal128, Long, ObjectId } from 'mongodb';
import { marker, open, patient } from './both.mjs';

const it = open('crud');

test('insert and find give back the document', async () => {
  const one = patient(1);
  await it.both(async (c) => (await c.insertOne({ ...one })).insertedId);
  await it.both((c) => c.findOne({ _id: 1 }));
  await it.both((c) => c.findOne({ nhs_number: one.nhs_number }));
  await it.both((c) => c.findOne({ 'contacts.phone': one.contacts[1].phone }));
  await it.both((c) => c.findOne({ date_of_birth: one.date_of_birth }, { projection: { nhs_number: 1, address: 1 } }));
});

test('random fields keep what JavaScript makes of each type', async () => {
  const values = ['text', 5, 5.5, 2 ** 40, true, null, new Date(0), new ObjectId(), Long.fromString('9007199254740993'),
    Decimal128.fromString('1.00'), new Binary(Buffer.from('abc')), /a.*b/i, [1, [2, { x: null }]], { a: { b: [] } }];
  for (const [n, notes] of values.entries()) {
    await it.both(async (c) => (await c.insertOne({ _id: `type ${n}`, notes })).insertedId);
    await it.both((c) => c.findOne({ _id: `type ${n}` }));
  }
});

test('updates', async () => {
  const two = patient(2);
  await it.both(async (c) => (await c.insertOne({ ...two })).insertedId);
  const updates = [
    { $set: { nhs_number: marker() } },
    { $set: { address: { line1: marker(), city: 'York' } } },
    { $set: { 'contacts.0.phone': marker() } },
    { $push: { contacts: { kind: 'work', phone: marker() } } },
    { $pull: { contacts: { phone: two.contacts[1].phone } } },
    { $unset: { notes: '' }, $inc: { visits: 1 } },
  ];
  for (const update of updates) {
    await it.both(async (c) => (await c.updateOne({ mrn: two.mrn }, update)).modifiedCount);
    await it.both((c) => c.findOne({ _id: 2 }));
  }
  const phone = marker();
  await it.both(async (c) => (await c.updateOne({ mrn: two.mrn }, { $set: { 'contacts.$[c].phone': phone } },
    { arrayFilters: [{ 'c.kind': 'work' }] })).modifiedCount);
  await it.both((c) => c.findOne({ 'contacts.phone': phone }));
});

test('replace, upsert, findOneAnd…, delete', async () => {
  const [three, replacement, value] = [patient(3), patient(3, { ward: 'C' }), marker()];
  await it.both(async (c) => (await c.insertOne({ ...three })).insertedId);
  await it.both(async (c) => (await c.replaceOne({ nhs_number: three.nhs_number }, replacement)).modifiedCount);
  await it.both((c) => c.findOneAndUpdate({ nhs_number: replacement.nhs_number }, { $set: { mrn: value } }, { returnDocument: 'after' }));
  await it.both(async (c) => (await c.updateOne({ nhs_number: value }, { $setOnInsert: { _id: 4 } }, { upsert: true })).upsertedId);
  await it.both((c) => c.findOne({ nhs_number: value }));
  await it.both((c) => c.findOneAndDelete({ nhs_number: value }));
  assert.equal(await it.both(async (c) => (await c.deleteMany({ mrn: value })).deletedCount), 1);
});

test('bulk write, count, distinct', async () => {
  const documents = [10, 11, 12].map((n) => patient(n));
  documents[2].postcode = documents[0].postcode;
  await it.both(async (c) => {
    const r = await c.bulkWrite([
      ...documents.map((document) => ({ insertOne: { document: { ...document } } })),
      { updateOne: { filter: { nhs_number: documents[0].nhs_number }, update: { $set: { ward: 'Q' } } } },
      { deleteOne: { filter: { nhs_number: documents[1].nhs_number } } },
    ]);
    return [r.insertedCount, r.modifiedCount, r.deletedCount];
  });
  await it.both((c) => c.countDocuments({ postcode: documents[0].postcode }));
  await it.both(async (c) => (await c.distinct('postcode', { _id: { $in: [10, 12] } })).sort());
});

test('a refusal arrives as a server error that names field and operator', async () => {
  await assert.rejects(it.sealed.findOne({ nhs_number: { $gt: marker() } }), (e) => {
    assert.equal(e.name, 'MongoServerError');
    assert.match(e.errmsg, /^fieldveil: /);
    assert.match(e.errmsg, /nhs_number/);
    assert.match(e.errmsg, /\$gt/);
    return true;
  });
});
