// Mongoose as its documentation shows it: schemas, a unique index, sub-documents, populate by reference and by a virtual, lean,
// aggregation, transactions. Each step runs once through the proxy and once directly against a plaintext server, with the same
// result asserted. Addresses and the marker prefix come from tests/e2e/test_applications.py.
import assert from 'node:assert/strict';
import mongoose from 'mongoose';

function given(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run this through tests/e2e/test_applications.py (make test)`);
  return value;
}

let made = 0;
const marker = () => `${given('FIELDVEIL_TEST_MARKER')}${String(50000 + made++)}`;
const id = (n) => new mongoose.Types.ObjectId(String(n).padStart(24, '0'));
const { Schema } = mongoose;

/** The same models on one connection. */
async function open(variable) {
  const connection = await mongoose.createConnection(given(variable), { dbName: given('FIELDVEIL_TEST_DB') }).asPromise();
  const ward = new Schema({ name: { type: String, required: true }, floor: Number }, { collection: 'mongoose_wards' });
  const patient = new Schema({
    nhs_number: { type: String, required: true, unique: true, match: /^[a-z0-9]+$/ },
    mrn: String, postcode: { type: String, uppercase: false }, date_of_birth: Date, notes: String,
    contacts: [{ _id: false, kind: { type: String, enum: ['mobile', 'home', 'work'] }, phone: String }],
    address: { line1: String, city: String }, allergies: [String],
    ward: { type: Schema.Types.ObjectId, ref: 'Ward' }, visits: { type: Number, default: 0 },
  }, { collection: 'mongoose_patients', toJSON: { virtuals: true }, optimisticConcurrency: true });
  patient.virtual('episodes', { ref: 'Episode', localField: 'nhs_number', foreignField: 'nhs_number' });
  patient.virtual('initial').get(function () { return this.nhs_number?.[0]; });
  const episode = new Schema({ nhs_number: String, summary: String, on: Date }, { collection: 'mongoose_episodes' });
  const models = { Ward: connection.model('Ward', ward), Patient: connection.model('Patient', patient), Episode: connection.model('Episode', episode) };
  for (const model of Object.values(models)) await model.deleteMany({});
  // createCollection and the indexes of the schema, as mongoose does on its own (autoIndex).
  for (const model of Object.values(models)) await model.init();
  return { connection, ...models };
}

const sealed = await open('FIELDVEIL_TEST_PROXY_URI');
const plain = await open('FIELDVEIL_TEST_PLAIN_URI');
const json = (value) => JSON.parse(JSON.stringify(value ?? null));
let steps = 0, failed = 0;

/** Runs the operation on both; a step that gives nothing compares nothing and fails. */
async function step(name, operation) {
  steps++;
  try {
    const expected = json(await operation(plain));
    const actual = json(await operation(sealed));
    assert.deepEqual(actual, expected);
    assert.ok(actual !== null && (!Array.isArray(actual) || actual.length), 'nothing to compare');
    console.log(`ok ${name}`);
  } catch (e) {
    failed++;
    console.log(`not ok ${name}: ${e.stack}`);
  }
}

const ada = { _id: id(1), nhs_number: marker(), mrn: marker(), postcode: marker(), date_of_birth: new Date('1951-03-04'), notes: marker(),
  contacts: [{ kind: 'mobile', phone: marker() }, { kind: 'home', phone: marker() }], address: { line1: marker(), city: 'Leeds' },
  allergies: [marker(), marker()], ward: id(900) };
const others = Array.from({ length: 25 }, (_, n) => ({ ...ada, _id: id(100 + n), nhs_number: marker(), mrn: marker(), notes: marker(), ward: id(900 + (n % 2)), visits: n }));
const [summary, newNotes, newPhone, newNumber, upserted] = Array.from({ length: 5 }, marker);

await step('create', async (m) => {
  await m.Ward.create([{ _id: id(900), name: 'A1', floor: 1 }, { _id: id(901), name: 'B2', floor: 2 }]);
  return m.Patient.create(structuredCloneOf(ada));
});
await step('insertMany', async (m) => (await m.Patient.insertMany(others.map(structuredCloneOf))).length);
await step('findOne by a protected field', (m) => m.Patient.findOne({ nhs_number: ada.nhs_number }));
await step('findById, select and lean', (m) => m.Patient.findById(id(1)).select('nhs_number address').lean());
await step('where, in, limit and sort', (m) => m.Patient.find().where('nhs_number').in([others[0].nhs_number, others[1].nhs_number]).sort('visits').limit(5));
await step('through an array', (m) => m.Patient.find({ 'contacts.phone': ada.contacts[1].phone }).sort('_id').lean());
await step('by date', (m) => m.Patient.find({ date_of_birth: new Date('1951-03-04') }).sort({ _id: 1 }).limit(3));
await step('populate by reference', (m) => m.Patient.findOne({ mrn: ada.mrn }).populate('ward'));
await step('populate through a protected field', async (m) => {
  await m.Episode.create({ _id: id(500), nhs_number: ada.nhs_number, summary, on: new Date(0) });
  return m.Patient.findOne({ mrn: ada.mrn }).populate('episodes');
});
await step('cursor', async (m) => {
  const seen = [];
  for await (const patient of m.Patient.find().sort('_id').batchSize(7).cursor()) seen.push(patient.toObject());
  return seen;
});
await step('change and save', async (m) => {
  const patient = await m.Patient.findById(id(1));
  patient.notes = newNotes;
  patient.contacts[0].phone = newPhone;
  patient.contacts.push({ kind: 'work', phone: newPhone });
  patient.allergies = [...patient.allergies, newNotes];
  patient.visits += 1;
  await patient.save();
  return m.Patient.findById(id(1));
});
await step('save of an outdated document', async (m) => {
  const [one, two] = [await m.Patient.findById(id(1)), await m.Patient.findById(id(1))];
  one.mrn = newNotes;
  await one.save();
  two.mrn = newPhone;
  return two.save().then(() => 'saved', (e) => e.name);
});
await step('validation', (m) => m.Patient.create({ nhs_number: 'NOT VALID' }).then(() => 'stored', (e) => [e.name, Object.keys(e.errors)]));
await step('unique index', (m) => m.Patient.create({ ...structuredCloneOf(others[0]), _id: id(2) }).then(() => 'stored twice', (e) => e.code));
await step('findOneAndUpdate', (m) => m.Patient.findOneAndUpdate({ nhs_number: others[2].nhs_number }, { nhs_number: newNumber }, { returnDocument: 'after' }));
await step('upsert', async (m) => {
  await m.Patient.updateOne({ nhs_number: upserted }, { $setOnInsert: { _id: id(3), mrn: newPhone } }, { upsert: true });
  return m.Patient.findById(id(3));
});
await step('updateMany, count, exists, distinct', async (m) => [
  (await m.Patient.updateMany({ postcode: ada.postcode }, { $inc: { visits: 1 } })).modifiedCount,
  await m.Patient.countDocuments({ postcode: ada.postcode }), Boolean(await m.Patient.exists({ mrn: newPhone })), await m.Patient.distinct('postcode', { _id: id(1) })]);
await step('bulkWrite', async (m) => {
  const r = await m.Patient.bulkWrite([{ updateOne: { filter: { nhs_number: newNumber }, update: { notes: newNotes } } }, { deleteOne: { filter: { nhs_number: others[3].nhs_number } } }]);
  return [r.modifiedCount, r.deletedCount];
});
await step('aggregate', (m) => m.Patient.aggregate([
  { $match: { postcode: ada.postcode } }, { $group: { _id: '$ward', patients: { $sum: 1 }, visits: { $sum: '$visits' } } },
  { $lookup: { from: 'mongoose_wards', localField: '_id', foreignField: '_id', as: 'ward' } }, { $sort: { _id: 1 } }]));
await step('aggregate with a join through a protected field', (m) => m.Patient.aggregate([
  { $match: { nhs_number: ada.nhs_number } }, { $lookup: { from: 'mongoose_episodes', localField: 'nhs_number', foreignField: 'nhs_number', as: 'episodes' } },
  { $project: { number: '$nhs_number', 'episodes.summary': 1 } }]));
await step('transaction', async (m) => {
  await m.connection.transaction(async (session) => {
    const patient = await m.Patient.findOne({ nhs_number: ada.nhs_number }).session(session);
    patient.notes = summary;
    await patient.save();
    await m.Episode.create([{ _id: id(501), nhs_number: patient.nhs_number, summary: newNotes }], { session });
  });
  return [await m.Patient.findById(id(1)), await m.Episode.find({ nhs_number: ada.nhs_number }).sort('_id')];
});
await step('transaction rolled back', async (m) => {
  await m.connection.transaction(async (session) => {
    await m.Patient.deleteOne({ nhs_number: ada.nhs_number }).session(session);
    throw new Error('rolled back');
  }).catch((e) => assert.equal(e.message, 'rolled back'));
  return m.Patient.findOne({ nhs_number: ada.nhs_number });
});
await step('watch', async (m) => {
  const stream = m.Episode.watch();
  const event = new Promise((resolve, reject) => { stream.once('change', resolve); stream.once('error', reject); });
  await new Promise((resolve) => { stream.once('resumeTokenChanged', resolve); });
  await m.Episode.create({ _id: id(502), nhs_number: ada.nhs_number, summary });
  const { operationType, fullDocument } = await event;
  await stream.close();
  return [operationType, fullDocument];
});
await step('indexes', async (m) => (await m.Patient.listIndexes()).map(({ name, unique }) => [name, Boolean(unique)]));
await step('delete', async (m) => (await m.Patient.deleteOne({ nhs_number: ada.nhs_number })).deletedCount);

// What is refused, and how that arrives: docs/APPLICATIONS.md lists these.
const refusals = {
  'a range over a sealed date': () => sealed.Patient.find({ date_of_birth: { $gt: new Date(0) } }),
  'a search by regular expression': () => sealed.Patient.find({ nhs_number: /^9/ }),
  'an order by a sealed field': () => sealed.Patient.find().sort('nhs_number'),
  'a number made of a sealed field': () => sealed.Patient.aggregate([{ $project: { year: { $year: '$date_of_birth' } } }]),
};
for (const [name, run] of Object.entries(refusals)) {
  steps++;
  const e = await Promise.resolve().then(run).then((found) => new Error(`answered with ${JSON.stringify(found)}`), (error) => error);
  if (e.name === 'MongoServerError' && /^fieldveil: .*(nhs_number|date_of_birth)/.test(e.message)) console.log(`ok refused: ${name}`);
  else {
    failed++;
    console.log(`not ok refused: ${name}: ${e.stack}`);
  }
}

await sealed.connection.close();
await plain.connection.close();
console.log(`${steps} steps, ${failed} failed`);
process.exitCode = failed ? 1 : 0;

/** Models keep what they are given: each side gets its own. */
function structuredCloneOf(patient) {
  return { ...patient, contacts: patient.contacts.map((c) => ({ ...c })), address: { ...patient.address }, allergies: [...patient.allergies] };
}
