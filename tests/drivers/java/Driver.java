import com.mongodb.MongoException;
import com.mongodb.MongoWriteException;
import com.mongodb.client.ChangeStreamIterable;
import com.mongodb.client.ClientSession;
import com.mongodb.client.MongoClient;
import com.mongodb.client.MongoClients;
import com.mongodb.client.MongoCollection;
import com.mongodb.client.MongoCursor;
import com.mongodb.client.model.BulkWriteOptions;
import com.mongodb.client.model.DeleteOneModel;
import com.mongodb.client.model.Filters;
import com.mongodb.client.model.FindOneAndUpdateOptions;
import com.mongodb.client.model.IndexOptions;
import com.mongodb.client.model.InsertOneModel;
import com.mongodb.client.model.Projections;
import com.mongodb.client.model.ReplaceOptions;
import com.mongodb.client.model.ReturnDocument;
import com.mongodb.client.model.UpdateOneModel;
import com.mongodb.client.model.UpdateOptions;
import com.mongodb.client.model.Updates;
import com.mongodb.client.model.changestream.ChangeStreamDocument;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Date;
import java.util.List;
import java.util.Objects;
import org.bson.Document;
import org.bson.conversions.Bson;

/**
 * The unmodified Java driver, each step once through the proxy and once directly against a plaintext server, with the same result
 * asserted. Addresses and the marker prefix come from tests/e2e/test_drivers.py, which starts the servers.
 */
public final class Driver {
    /** One connection: through the proxy, or not. */
    record Side(MongoClient client, MongoCollection<Document> c) {
        static Side open(String variable) {
            MongoClient client = MongoClients.create(given(variable));
            MongoCollection<Document> c = client.getDatabase(given("FIELDVEIL_TEST_DB")).getCollection("patients_java");
            c.deleteMany(new Document());
            return new Side(client, c);
        }
    }

    /** What is run on both sides. */
    interface Operation {
        Object run(Side side);
    }

    private static int made, steps, failed;
    private static Side sealed, plain;

    static String given(String name) {
        String value = System.getenv(name);
        if (value == null) throw new IllegalStateException(name + " is not set: run this through tests/e2e/test_drivers.py (make test)");
        return value;
    }

    /** A value that the scan after the tests looks for; never twice the same. */
    static String marker() {
        return "%s%05d".formatted(given("FIELDVEIL_TEST_MARKER"), 60_000 + made++);
    }

    static Document patient(int id) {
        return new Document("_id", id).append("nhs_number", marker()).append("mrn", marker()).append("postcode", marker())
            .append("date_of_birth", Date.from(Instant.parse("19%02d-01-%02dT00:00:00Z".formatted(50 + id % 50, 1 + id % 28))))
            .append("notes", marker())
            .append("contacts", List.of(new Document("kind", "mobile").append("phone", marker()), new Document("kind", "home").append("phone", marker())))
            .append("address", new Document("line1", marker()).append("city", "Leeds"))
            .append("allergies", List.of(marker(), marker())).append("ward", "A1").append("visits", 3);
    }

    /** Runs the operation on both sides; null would compare nothing, so it counts as a failure. */
    static void step(String name, Operation operation) {
        steps++;
        Object expected = operation.run(plain);
        try {
            Object actual = operation.run(sealed);
            if (actual != null && Objects.equals(actual, expected)) {
                System.out.println("ok " + name);
                return;
            }
            System.out.printf("not ok %s: %s, expected %s%n", name, actual, expected);
        } catch (MongoException e) {
            System.out.printf("not ok %s: %s%n", name, e);
        }
        failed++;
    }

    static Bson sameMrn(Document patient) {
        return Filters.eq("mrn", patient.get("mrn"));
    }

    public static void main(String[] arguments) {
        sealed = Side.open("FIELDVEIL_TEST_PROXY_URI");
        plain = Side.open("FIELDVEIL_TEST_PLAIN_URI");
        reads();
        updates();
        writes();
        transactions();
        changes();
        refusal();
        sealed.client.close();
        plain.client.close();
        System.out.printf("%d steps, %d failed%n", steps, failed);
        System.exit(failed == 0 ? 0 : 1);
    }

    static void reads() {
        Document first = patient(1);
        step("insert one", s -> s.c.insertOne(new Document(first)).getInsertedId());
        step("find by _id", s -> s.c.find(Filters.eq(1)).first());
        for (String key : List.of("nhs_number", "mrn", "postcode", "date_of_birth")) step("find by " + key, s -> s.c.find(Filters.eq(key, first.get(key))).first());
        Object phone = first.getList("contacts", Document.class).get(1).get("phone");
        step("find through an array", s -> s.c.find(Filters.eq("contacts.phone", phone)).first());
        step("projection", s -> s.c.find(Filters.eq(1)).projection(Projections.include("nhs_number", "address")).first());
        List<Document> many = new ArrayList<>();
        for (int id = 100; id < 400; id++) many.add(patient(id));
        step("insert many", s -> s.c.insertMany(many.stream().map(Document::new).toList()).getInsertedIds().size());
        step("cursor over batches", s -> s.c.find().sort(new Document("_id", 1)).batchSize(37).into(new ArrayList<>()));
        step("cursor left early", s -> {
            List<Document> documents = new ArrayList<>();
            try (MongoCursor<Document> cursor = s.c.find().sort(new Document("_id", -1)).batchSize(5).iterator()) {
                while (documents.size() < 12) documents.add(cursor.next());
            }
            return documents;
        });
        step("count", s -> s.c.countDocuments(sameMrn(first)));
        step("distinct", s -> s.c.distinct("postcode", Filters.eq(1), String.class).into(new ArrayList<>()));
        step("aggregate", s -> s.c.aggregate(List.of(new Document("$match", new Document("mrn", first.get("mrn"))),
            new Document("$project", new Document("number", "$nhs_number").append("notes", 1)))).into(new ArrayList<>()));
    }

    static void updates() {
        Document five = patient(5);
        Object phone = five.getList("contacts", Document.class).get(1).get("phone");
        step("insert for updates", s -> s.c.insertOne(new Document(five)).getInsertedId());
        List<Bson> updates = List.of(Updates.set("nhs_number", marker()), Updates.set("address.line1", marker()), Updates.set("contacts.0.phone", marker()),
            Updates.push("contacts", new Document("kind", "work").append("phone", marker())), Updates.pull("contacts", new Document("phone", phone)),
            Updates.combine(Updates.unset("notes"), Updates.inc("visits", 1)));
        for (Bson update : updates) {
            step("update " + updates.indexOf(update), s -> s.c.updateOne(sameMrn(five), update).getModifiedCount());
            step("after update " + updates.indexOf(update), s -> s.c.find(Filters.eq(5)).first());
        }
        String value = marker();
        step("array filters", s -> s.c.updateOne(Filters.eq(5), Updates.set("contacts.$[c].phone", value),
            new UpdateOptions().arrayFilters(List.of(Filters.eq("c.kind", "work")))).getModifiedCount());
        step("after array filters", s -> s.c.find(Filters.eq("contacts.phone", value)).first());
        String newer = marker();
        step("find one and update", s -> s.c.findOneAndUpdate(sameMrn(five), Updates.set("mrn", newer), new FindOneAndUpdateOptions().returnDocument(ReturnDocument.AFTER)));
    }

    static void writes() {
        Document replacement = patient(2), third = patient(3);
        step("replace with upsert", s -> s.c.replaceOne(Filters.eq("nhs_number", replacement.get("nhs_number")), new Document(replacement), new ReplaceOptions().upsert(true)).getUpsertedId());
        step("bulk write", s -> {
            var r = s.c.bulkWrite(List.of(new InsertOneModel<>(new Document(third)), new UpdateOneModel<>(sameMrn(third), Updates.set("ward", "Q")),
                new DeleteOneModel<>(sameMrn(replacement))), new BulkWriteOptions().ordered(true));
            return List.of(r.getInsertedCount(), r.getModifiedCount(), r.getDeletedCount());
        });
        step("delete", s -> s.c.deleteMany(sameMrn(third)).getDeletedCount());
        Document six = patient(6), again = patient(7).append("nhs_number", six.get("nhs_number"));
        step("unique index", s -> {
            s.c.createIndex(new Document("nhs_number", 1), new IndexOptions().unique(true));
            s.c.insertOne(new Document(six));
            try {
                s.c.insertOne(new Document(again));
                return "stored twice";
            } catch (MongoWriteException e) {
                return e.getError().getCategory();
            }
        });
    }

    static void transactions() {
        Document ten = patient(10);
        step("transaction committed", s -> {
            try (ClientSession session = s.client.startSession()) {
                return session.withTransaction(() -> {
                    s.c.insertOne(session, new Document(ten));
                    return s.c.find(session, sameMrn(ten)).first();
                });
            }
        });
        String never = marker();
        step("transaction aborted", s -> {
            try (ClientSession session = s.client.startSession()) {
                session.startTransaction();
                s.c.updateOne(session, sameMrn(ten), Updates.set("notes", never));
                session.abortTransaction();
            }
            return s.c.find(Filters.eq(10)).first();
        });
    }

    static void changes() {
        Document observed = patient(20);
        String number = marker();
        step("change stream", s -> {
            ChangeStreamIterable<Document> watched = s.c.watch();
            List<Object> events = new ArrayList<>();
            try (var stream = watched.cursor()) {
                s.c.insertOne(new Document(observed));
                s.c.updateOne(Filters.eq(20), Updates.set("nhs_number", number));
                s.c.deleteOne(Filters.eq("nhs_number", number));
                while (events.size() < 3) {
                    ChangeStreamDocument<Document> event = stream.next();
                    var description = event.getUpdateDescription();
                    events.add(List.of(event.getOperationType(), event.getDocumentKey(), String.valueOf(event.getFullDocument()),
                        description == null ? "" : String.valueOf(description.getUpdatedFields())));
                }
            }
            return events;
        });
    }

    static void refusal() {
        steps++;
        try {
            sealed.c.find(Filters.gt("nhs_number", marker())).first();
            failed++;
            System.out.println("not ok a refusal names field and operator: it was answered");
        } catch (MongoException e) {
            boolean named = e.getMessage().contains("fieldveil: ") && e.getMessage().contains("nhs_number") && e.getMessage().contains("$gt");
            if (!named) failed++;
            System.out.printf("%s a refusal names field and operator%s%n", named ? "ok" : "not ok", named ? "" : ": " + e);
        }
    }
}
