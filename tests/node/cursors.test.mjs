import assert from 'node:assert/strict';
import { test } from 'node:test';
import { open, patient } from './both.mjs';

const it = open('cursors');
const documents = Array.from({ length: 250 }, (_, n) => patient(n));

test('many documents in one insert, and back in several batches', async () => {
  await it.both(async (c) => (await c.insertMany(documents.map((d) => ({ ...d })))).insertedCount);
  for (const batchSize of [7, 100, 1000]) {
    const found = await it.both((c) => c.find().sort({ _id: 1 }).batchSize(batchSize).toArray());
    assert.equal(found.length, documents.length);
  }
});

test('for await, then closed early', async () => {
  await it.both(async (c) => {
    const seen = [];
    for await (const d of c.find().sort({ _id: 1 }).batchSize(3)) {
      seen.push(d.nhs_number);
      if (seen.length === 10) break;
    }
    return seen;
  });
});

test('$in over many values', async () => {
  const wanted = documents.slice(0, 100).map((d) => d.nhs_number);
  const found = await it.both((c) => c.find({ nhs_number: { $in: wanted } }).sort({ _id: 1 }).map((d) => d._id).toArray());
  assert.equal(found.length, 100);
});

test('aggregation with a cursor, a match on a protected field and a group by one', async () => {
  await it.both((c) => c.aggregate([{ $sort: { _id: 1 } }, { $project: { number: '$nhs_number', city: '$address.city' } }], { batchSize: 20 }).toArray());
  await it.both((c) => c.aggregate([{ $match: { postcode: documents[3].postcode } }, { $group: { _id: '$postcode', n: { $sum: 1 } } }]).toArray());
  await it.both((c) => c.aggregate([{ $unwind: '$contacts' }, { $match: { 'contacts.phone': documents[5].contacts[1].phone } }, { $count: 'n' }]).toArray());
});
