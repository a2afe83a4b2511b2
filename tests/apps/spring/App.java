import com.mongodb.client.MongoClient;
import com.mongodb.client.MongoClients;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.function.Function;
import java.util.stream.Stream;
import org.bson.Document;
import org.springframework.dao.DuplicateKeyException;
import org.springframework.dao.OptimisticLockingFailureException;
import org.springframework.data.annotation.Id;
import org.springframework.data.annotation.Version;
import org.springframework.data.domain.Example;
import org.springframework.data.domain.PageRequest;
import org.springframework.data.domain.Sort;
import org.springframework.data.mongodb.MongoTransactionManager;
import org.springframework.data.mongodb.core.BulkOperations.BulkMode;
import org.springframework.data.mongodb.core.FindAndModifyOptions;
import org.springframework.data.mongodb.core.MongoTemplate;
import org.springframework.data.mongodb.core.SimpleMongoClientDatabaseFactory;
import org.springframework.data.mongodb.core.aggregation.Aggregation;
import org.springframework.data.mongodb.core.index.Index;
import org.springframework.data.mongodb.core.mapping.DBRef;
import org.springframework.data.mongodb.core.mapping.Field;
import org.springframework.data.mongodb.core.query.Criteria;
import org.springframework.data.mongodb.core.query.Query;
import org.springframework.data.mongodb.core.query.Update;
import org.springframework.data.mongodb.repository.MongoRepository;
import org.springframework.data.mongodb.repository.support.MongoRepositoryFactory;
import org.springframework.transaction.support.TransactionTemplate;

/**
 * Spring Data MongoDB as its reference shows it: mapped classes, a repository with derived and declared queries, the template, optimistic
 * locking, references and transactions. Each step runs once through the proxy and once directly against a plaintext server, with the
 * same result asserted. Addresses and the marker prefix come from tests/e2e/test_applications.py.
 */
public final class App {
    @org.springframework.data.mongodb.core.mapping.Document("spring_wards")
    public static class Ward {
        @Id public String id;
        public String name;
    }

    public static class Contact {
        public String kind;
        public String phone;
    }

    public static class Address {
        public String line1;
        public String city;
    }

    @org.springframework.data.mongodb.core.mapping.Document("spring_patients")
    public static class Patient {
        @Id public Integer id;
        @Field("nhs_number") public String nhsNumber;
        public String mrn;
        public String postcode;
        @Field("date_of_birth") public Instant dateOfBirth;
        public String notes;
        public List<Contact> contacts;
        public Address address;
        public List<String> allergies;
        @DBRef public Ward ward;
        public Integer visits;
        @Version public Long version;
    }

    @org.springframework.data.mongodb.core.mapping.Document("spring_episodes")
    public static class Episode {
        @Id public Integer id;
        @Field("nhs_number") public String nhsNumber;
        public String summary;
    }

    /** A closed projection: only these fields are asked for. */
    public interface Label {
        String getNhsNumber();

        Integer getVisits();
    }

    public interface Patients extends MongoRepository<Patient, Integer> {
        Optional<Patient> findByNhsNumber(String number);

        List<Patient> findByMrnInOrderById(Collection<String> mrns);

        List<Patient> findByContactsPhone(String phone);

        List<Patient> findByPostcodeAndVisitsGreaterThan(String postcode, int visits);

        List<Patient> findByNhsNumberNotOrderById(String number);

        List<Patient> findByNotesIsNull();

        List<Patient> findByDateOfBirth(Instant day);

        List<Label> findByPostcode(String postcode);

        boolean existsByMrn(String mrn);

        long countByPostcode(String postcode);

        long deleteByMrn(String mrn);

        Stream<Patient> findAllByVisitsGreaterThanOrderById(int visits);

        @org.springframework.data.mongodb.repository.Query("{ 'nhs_number': ?0, 'contacts.kind': ?1 }")
        List<Patient> declared(String number, String kind);

        @org.springframework.data.mongodb.repository.Query("{ 'mrn': ?0 }")
        @org.springframework.data.mongodb.repository.Update("{ '$set': { 'notes': ?1 }, '$inc': { 'visits': 1 } }")
        long annotate(String mrn, String notes);

        List<Patient> findByDateOfBirthAfter(Instant day);

        List<Patient> findByNhsNumberStartingWith(String start);

        List<Patient> findByNotes(String notes);
    }

    /** One side: through the proxy, or not. */
    record Side(MongoClient client, MongoTemplate template, Patients patients, TransactionTemplate transactions) {
        static Side open(String variable) {
            MongoClient client = MongoClients.create(given(variable));
            var factory = new SimpleMongoClientDatabaseFactory(client, given("FIELDVEIL_TEST_DB"));
            var template = new MongoTemplate(factory);
            var patients = new MongoRepositoryFactory(template).getRepository(Patients.class);
            return new Side(client, template, patients, new TransactionTemplate(new MongoTransactionManager(factory)));
        }

        /** A mapped object as the document that it is stored as. */
        Document document(Object mapped) {
            if (mapped == null) return null;
            var document = new Document();
            template.getConverter().write(mapped, document);
            return document;
        }

        List<Document> documents(Collection<?> mapped) {
            return mapped.stream().map(this::document).toList();
        }
    }

    private static int made, steps, failed;
    private static Side sealed, plain;

    static String given(String name) {
        String value = System.getenv(name);
        if (value == null) throw new IllegalStateException(name + " is not set: run this through tests/e2e/test_applications.py (make test)");
        return value;
    }

    /** A value that the scan after the tests looks for; never twice the same. */
    static String marker() {
        return "%s%05d".formatted(given("FIELDVEIL_TEST_MARKER"), 70_000 + made++);
    }

    /** What a patient is made of; each side builds an object of its own from it, because saving changes the object. */
    record Values(int id, String number, String mrn, String postcode, Instant born, String notes, String phone, String line1, List<String> allergies) {
        static Values of(int id, String postcode) {
            return new Values(id, marker(), marker(), postcode, Instant.parse("19%02d-03-04T00:00:00Z".formatted(50 + id % 50)), marker(), marker(), marker(),
                List.of(marker(), marker()));
        }

        Patient build() {
            var patient = new Patient();
            patient.id = id;
            patient.nhsNumber = number;
            patient.mrn = mrn;
            patient.postcode = postcode;
            patient.dateOfBirth = born;
            patient.notes = notes;
            var contact = new Contact();
            contact.kind = "mobile";
            contact.phone = phone;
            patient.contacts = new ArrayList<>(List.of(contact));
            patient.address = new Address();
            patient.address.line1 = line1;
            patient.address.city = "Leeds";
            patient.allergies = new ArrayList<>(allergies);
            patient.visits = id;
            return patient;
        }
    }

    /** Runs the operation on both sides; null would compare nothing, so it counts as a failure. */
    static void step(String name, Function<Side, Object> operation) {
        steps++;
        try {
            Object expected = operation.apply(plain);
            Object actual = operation.apply(sealed);
            if (actual != null && Objects.equals(actual, expected)) {
                System.out.println("ok " + name);
                return;
            }
            System.out.printf("not ok %s: %s, expected %s%n", name, actual, expected);
        } catch (RuntimeException e) {
            System.out.printf("not ok %s: %s%n", name, e);
        }
        failed++;
    }

    /** Runs the operation through the proxy, which has to refuse it and name the field. */
    static void refused(String name, Function<Side, Object> operation, String field) {
        steps++;
        try {
            System.out.printf("not ok refused: %s: answered with %s%n", name, operation.apply(sealed));
        } catch (RuntimeException e) {
            String text = String.valueOf(e.getMessage());
            if (text.contains("fieldveil: ") && text.contains(field)) {
                System.out.println("ok refused: " + name);
                return;
            }
            System.out.printf("not ok refused: %s: %s%n", name, text);
        }
        failed++;
    }

    public static void main(String[] arguments) {
        sealed = Side.open("FIELDVEIL_TEST_PROXY_URI");
        plain = Side.open("FIELDVEIL_TEST_PLAIN_URI");
        repository();
        template();
        refusals();
        sealed.client.close();
        plain.client.close();
        System.out.printf("%d steps, %d failed%n", steps, failed);
        System.exit(failed == 0 ? 0 : 1);
    }

    static void repository() {
        String postcode = marker(), told = marker();
        Values ada = Values.of(1, postcode), bea = Values.of(2, postcode);
        List<Values> crowd = Stream.iterate(100, n -> n + 1).limit(150).map(n -> Values.of(n, marker())).toList();
        step("drop and index", s -> {
            for (var c : List.of(Patient.class, Ward.class, Episode.class)) s.template.dropCollection(c);
            return s.template.indexOps(Patient.class).createIndex(new Index("nhs_number", Sort.Direction.ASC).unique().named("number"));
        });
        step("save a new one with a reference", s -> {
            var ward = new Ward();
            ward.id = "a1";
            ward.name = "A1";
            var patient = ada.build();
            patient.ward = s.template.save(ward);
            return s.document(s.patients.save(patient));
        });
        step("save all", s -> s.documents(s.patients.saveAll(crowd.stream().map(Values::build).toList())));
        step("insert", s -> s.document(s.patients.insert(bea.build())));
        step("find by id", s -> s.document(s.patients.findById(1).orElse(null)));
        step("the reference is followed", s -> s.patients.findById(1).map(p -> p.ward.name).orElse(null));
        step("derived: one protected field", s -> s.document(s.patients.findByNhsNumber(ada.number).orElse(null)));
        step("derived: in", s -> s.documents(s.patients.findByMrnInOrderById(List.of(ada.mrn, bea.mrn, crowd.get(3).mrn))));
        step("derived: through a list", s -> s.documents(s.patients.findByContactsPhone(ada.phone)));
        step("derived: protected and unprotected", s -> s.documents(s.patients.findByPostcodeAndVisitsGreaterThan(postcode, 1)));
        step("derived: not", s -> s.documents(s.patients.findByNhsNumberNotOrderById(ada.number)).size());
        step("derived: is null", s -> s.documents(s.patients.findByNotesIsNull()).size());
        step("derived: an instant", s -> s.documents(s.patients.findByDateOfBirth(ada.born)).size());
        step("derived: exists and count", s -> List.of(s.patients.existsByMrn(ada.mrn), s.patients.existsByMrn("none"), s.patients.countByPostcode(postcode)));
        step("a projection", s -> s.patients.findByPostcode(postcode).stream().map(l -> l.getNhsNumber() + l.getVisits()).sorted().toList());
        step("declared", s -> s.documents(s.patients.declared(ada.number, "mobile")));
        step("declared update", s -> s.patients.annotate(bea.mrn, told));
        step("what it changed", s -> s.document(s.patients.findById(2).orElse(null)));
        step("a page", s -> {
            var page = s.patients.findAll(PageRequest.of(2, 20, Sort.by("id")));
            return List.of(page.getTotalElements(), s.documents(page.getContent()));
        });
        step("a stream over batches", s -> {
            try (var stream = s.patients.findAllByVisitsGreaterThanOrderById(50)) {
                return stream.map(p -> p.nhsNumber).toList();
            }
        });
        step("by example", s -> {
            var probe = new Patient();
            probe.mrn = ada.mrn;
            probe.postcode = postcode;
            return s.documents(s.patients.findAll(Example.of(probe)));
        });
        step("change and save", s -> {
            var patient = s.patients.findById(1).orElseThrow();
            patient.notes = told;
            patient.contacts.get(0).phone = told;
            patient.allergies.add(told);
            s.patients.save(patient);
            return s.document(s.patients.findById(1).orElseThrow());
        });
        step("saving a stale one fails", s -> {
            var stale = s.patients.findById(1).orElseThrow();
            stale.version = 0L;
            try {
                return s.document(s.patients.save(stale));
            } catch (OptimisticLockingFailureException e) {
                return "stale";
            }
        });
        step("the same number twice fails", s -> {
            var twin = Values.of(3, postcode).build();
            twin.nhsNumber = ada.number;
            try {
                return s.document(s.patients.insert(twin));
            } catch (DuplicateKeyException e) {
                return "duplicate";
            }
        });
        step("derived delete", s -> s.patients.deleteByMrn(crowd.get(0).mrn));
        step("delete by id", s -> {
            s.patients.deleteById(crowd.get(1).id);
            return s.patients.count();
        });
    }

    static void template() {
        String number = marker(), notes = marker(), phone = marker(), postcode = marker();
        Values cyd = Values.of(10, postcode);
        step("update first", s -> {
            s.patients.insert(cyd.build());
            var change = new Update().set("notes", notes).set("address.line1", notes).inc("visits", 1);
            return s.template.updateFirst(Query.query(Criteria.where("mrn").is(cyd.mrn)), change, Patient.class).getModifiedCount();
        });
        step("a positional update", s -> {
            var one = Query.query(Criteria.where("mrn").is(cyd.mrn).and("contacts.phone").is(cyd.phone));
            return s.template.updateFirst(one, new Update().set("contacts.$.phone", phone), Patient.class).getModifiedCount();
        });
        step("find and modify", s -> s.document(s.template.findAndModify(Query.query(Criteria.where("nhsNumber").is(cyd.number)),
            new Update().set("nhsNumber", number), FindAndModifyOptions.options().returnNew(true), Patient.class)));
        step("upsert", s -> s.template.upsert(Query.query(Criteria.where("id").is(11).and("nhsNumber").is(cyd.number)),
            new Update().set("notes", notes).setOnInsert("mrn", notes), Patient.class).getUpsertedId());
        step("what the upsert made", s -> s.document(s.template.findById(11, Patient.class)));
        step("elemMatch, or, not in", s -> s.documents(s.template.find(Query.query(new Criteria().orOperator(
            Criteria.where("contacts").elemMatch(Criteria.where("kind").is("mobile").and("phone").is(phone)),
            Criteria.where("nhsNumber").is(cyd.number), Criteria.where("id").is(2).and("mrn").nin("x", notes))).with(Sort.by("id")), Patient.class)));
        step("fields", s -> {
            var some = Query.query(Criteria.where("postcode").is(postcode)).with(Sort.by("id"));
            some.fields().include("mrn", "contacts.phone").exclude("id");
            return s.documents(s.template.find(some, Patient.class));
        });
        step("distinct", s -> s.template.findDistinct(Query.query(Criteria.where("id").lt(20)), "nhsNumber", Patient.class, String.class).stream().sorted().toList());
        step("bulk", s -> s.template.bulkOps(BulkMode.ORDERED, Patient.class).insert(Values.of(12, postcode).build())
            .updateOne(Query.query(Criteria.where("nhsNumber").is(number)), Update.update("notes", phone))
            .remove(Query.query(Criteria.where("mrn").is(notes))).execute().getModifiedCount());
        step("group and sort", s -> s.template.aggregate(Aggregation.newAggregation(Aggregation.match(Criteria.where("id").lt(20)),
            Aggregation.group("postcode").count().as("n").sum("visits").as("visits"), Aggregation.sort(Sort.by("visits", "n"))), Patient.class, Document.class)
            .getMappedResults());
        step("look up across a shared domain", s -> {
            var episode = new Episode();
            episode.id = 1;
            episode.nhsNumber = number;
            episode.summary = notes;
            s.template.save(episode);
            return s.template.aggregate(Aggregation.newAggregation(Aggregation.lookup("spring_patients", "nhs_number", "nhs_number", "who"),
                Aggregation.unwind("who"), Aggregation.project("summary").and("who.notes").as("notes")), Episode.class, Document.class).getMappedResults();
        });
        step("a transaction that commits", s -> s.transactions.execute(status -> {
            s.template.updateFirst(Query.query(Criteria.where("nhsNumber").is(number)), Update.update("notes", number), Patient.class);
            return s.document(s.template.findOne(Query.query(Criteria.where("nhsNumber").is(number)), Patient.class));
        }));
        step("a transaction that rolls back", s -> {
            s.transactions.execute(status -> {
                status.setRollbackOnly();
                return s.template.remove(Query.query(Criteria.where("nhsNumber").is(number)), Patient.class).getDeletedCount();
            });
            return s.patients.findByNhsNumber(number).map(s::document).orElse(null);
        });
    }

    static void refusals() {
        refused("findByDateOfBirthAfter", s -> s.patients.findByDateOfBirthAfter(Instant.EPOCH), "date_of_birth");
        refused("findByNhsNumberStartingWith", s -> s.patients.findByNhsNumberStartingWith("9"), "nhs_number");
        refused("findByNotes", s -> s.patients.findByNotes("x"), "notes");
        refused("Sort.by(\"nhsNumber\")", s -> s.patients.findAll(Sort.by("nhsNumber")), "nhs_number");
        refused("Criteria.where(\"mrn\").regex(\"^9\")", s -> s.template.find(Query.query(Criteria.where("mrn").regex("^9")), Patient.class), "mrn");
    }
}
