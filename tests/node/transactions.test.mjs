import assert from 'node:assert/strict';
import { test } from 'node:test';
import { open, patient } from './both.mjs';

const it = open('transactions');

test('withTransaction commits', async () => {
  const [one, two] = [patient(1), patient(2)];
  await it.both((c, client) => client.withSession((session) => session.withTransaction(async () => {
    await c.insertOne({ ...one }, { session });
    await c.insertOne({ ...two }, { session });
    await c.updateOne({ nhs_number: one.nhs_number }, { $set: { ward: 'T' } }, { session });
    return c.countDocuments({ nhs_number: { $in: [one.nhs_number, two.nhs_number] } }, { session });
  })));
  await it.both((c) => c.find().sort({ _id: 1 }).toArray());
});

test('abort leaves nothing', async () => {
  await it.both((c, client) => client.withSession(async (session) => {
    session.startTransaction();
    await c.insertOne(patient('aborted'), { session });
    await session.abortTransaction();
  }));
  assert.equal(await it.both((c) => c.countDocuments({ _id: 'aborted' })), 0);
});

test('a write conflict carries its label', async () => {
  await it.both(async (c, client) => {
    const [a, b] = [client.startSession(), client.startSession()];
    try {
      a.startTransaction();
      b.startTransaction();
      await c.updateOne({ _id: 1 }, { $set: { ward: 'a' } }, { session: a });
      const error = await c.updateOne({ _id: 1 }, { $set: { ward: 'b' } }, { session: b }).then(() => null, (e) => e);
      await a.commitTransaction();
      return [error?.code, error?.hasErrorLabel('TransientTransactionError')];
    } finally {
      await a.endSession();
      await b.endSession();
    }
  });
});
