// The unmodified Go driver, each step once through the proxy and once directly against a plaintext server, with the same
// result asserted. Addresses and the marker prefix come from tests/e2e/test_drivers.py, which starts the servers.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const collection = "patients_go"

var (
	ctx = context.Background()
	// Values that occur nowhere else: the scan after the tests looks for them past the proxy.
	made = 0
)

func marker() string {
	made++
	return fmt.Sprintf("%s%05d", given("FIELDVEIL_TEST_MARKER"), 70000+made)
}

func given(name string) string {
	value := os.Getenv(name)
	if value == "" {
		fmt.Println(name + " is not set: run this through tests/e2e/test_drivers.py (make test)")
		os.Exit(2)
	}
	return value
}

func patient(id int) bson.D {
	return bson.D{
		{Key: "_id", Value: id}, {Key: "nhs_number", Value: marker()}, {Key: "mrn", Value: marker()}, {Key: "postcode", Value: marker()},
		{Key: "date_of_birth", Value: bson.NewDateTimeFromTime(time.Date(1950+id%50, 1, 1+id%28, 0, 0, 0, 0, time.UTC))},
		{Key: "notes", Value: marker()},
		{Key: "contacts", Value: bson.A{bson.D{{Key: "kind", Value: "mobile"}, {Key: "phone", Value: marker()}}, bson.D{{Key: "kind", Value: "home"}, {Key: "phone", Value: marker()}}}},
		{Key: "address", Value: bson.D{{Key: "line1", Value: marker()}, {Key: "city", Value: "Leeds"}}},
		{Key: "allergies", Value: bson.A{marker(), marker()}}, {Key: "ward", Value: "A1"}, {Key: "visits", Value: int32(3)},
	}
}

func field(document bson.D, name string) any {
	for _, e := range document {
		if e.Key == name {
			return e.Value
		}
	}
	return nil
}

type side struct {
	client *mongo.Client
	c      *mongo.Collection
}

func connect(variable string) side {
	client, err := mongo.Connect(options.Client().ApplyURI(given(variable)))
	if err != nil {
		panic(err)
	}
	return side{client, client.Database(given("FIELDVEIL_TEST_DB")).Collection(collection)}
}

// An operation's result; anything that reflect.DeepEqual can compare.
type operation func(s side) (any, error)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func one(s side, filter any, more ...options.Lister[options.FindOneOptions]) (any, error) {
	var document bson.D
	err := s.c.FindOne(ctx, filter, more...).Decode(&document)
	return document, err
}

func all(cursor *mongo.Cursor, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	documents := []bson.D{}
	err = cursor.All(ctx, &documents)
	return documents, err
}

func eq(key string, value any) bson.D { return bson.D{{Key: key, Value: value}} }

func main() {
	sealed, plain := connect("FIELDVEIL_TEST_PROXY_URI"), connect("FIELDVEIL_TEST_PLAIN_URI")
	for _, s := range []side{sealed, plain} {
		_, err := s.c.DeleteMany(ctx, bson.D{})
		check(err)
	}
	failed, steps := 0, 0
	// step runs one operation on both sides; a null result would compare nothing, so it counts as a failure.
	step := func(name string, run operation) {
		steps++
		expected, err := run(plain)
		check(err)
		actual, err := run(sealed)
		if err != nil || actual == nil || !reflect.DeepEqual(actual, expected) {
			failed++
			fmt.Printf("not ok %s: %v (%v), expected %v\n", name, actual, err, expected)
			return
		}
		fmt.Println("ok", name)
	}

	first := patient(1)
	step("insert one", func(s side) (any, error) { r, err := s.c.InsertOne(ctx, first); check(err); return r.InsertedID, err })
	step("find by _id", func(s side) (any, error) { return one(s, eq("_id", 1)) })
	for _, key := range []string{"nhs_number", "mrn", "postcode", "date_of_birth"} {
		step("find by "+key, func(s side) (any, error) { return one(s, eq(key, field(first, key))) })
	}
	phone := field(field(first, "contacts").(bson.A)[1].(bson.D), "phone")
	step("find through an array", func(s side) (any, error) { return one(s, eq("contacts.phone", phone)) })
	step("projection", func(s side) (any, error) {
		return one(s, eq("_id", 1), options.FindOne().SetProjection(bson.D{{Key: "nhs_number", Value: 1}, {Key: "address", Value: 1}}))
	})

	many := []any{}
	for id := 100; id < 400; id++ {
		many = append(many, patient(id))
	}
	step("insert many", func(s side) (any, error) {
		r, err := s.c.InsertMany(ctx, many)
		check(err)
		return len(r.InsertedIDs), err
	})
	step("cursor over batches", func(s side) (any, error) {
		return all(s.c.Find(ctx, bson.D{}, options.Find().SetBatchSize(37).SetSort(eq("_id", 1))))
	})
	step("cursor left early", func(s side) (any, error) {
		cursor, err := s.c.Find(ctx, bson.D{}, options.Find().SetBatchSize(5).SetSort(eq("_id", -1)))
		check(err)
		documents := []bson.D{}
		for len(documents) < 12 && cursor.Next(ctx) {
			var document bson.D
			check(cursor.Decode(&document))
			documents = append(documents, document)
		}
		return documents, cursor.Close(ctx)
	})
	step("count", func(s side) (any, error) { return s.c.CountDocuments(ctx, eq("mrn", field(first, "mrn"))) })
	step("distinct", func(s side) (any, error) {
		var values []string
		err := s.c.Distinct(ctx, "postcode", eq("_id", 1)).Decode(&values)
		return values, err
	})
	step("aggregate", func(s side) (any, error) {
		return all(s.c.Aggregate(ctx, bson.A{eq("$match", eq("mrn", field(first, "mrn"))),
			eq("$project", bson.D{{Key: "number", Value: "$nhs_number"}, {Key: "notes", Value: 1}})}))
	})

	updates := []bson.D{
		eq("$set", eq("nhs_number", marker())), eq("$set", eq("address.line1", marker())), eq("$set", eq("contacts.0.phone", marker())),
		eq("$push", eq("contacts", bson.D{{Key: "kind", Value: "work"}, {Key: "phone", Value: marker()}})),
		eq("$pull", eq("contacts", eq("phone", phone))), {{Key: "$unset", Value: eq("notes", "")}, {Key: "$inc", Value: eq("visits", 1)}},
	}
	for n, update := range updates {
		step(fmt.Sprintf("update %d", n), func(s side) (any, error) {
			r, err := s.c.UpdateOne(ctx, eq("mrn", field(first, "mrn")), update)
			check(err)
			return r.ModifiedCount, err
		})
		step(fmt.Sprintf("after update %d", n), func(s side) (any, error) { return one(s, eq("_id", 1)) })
	}
	value := marker()
	step("array filters", func(s side) (any, error) {
		_, err := s.c.UpdateOne(ctx, eq("_id", 1), eq("$set", eq("contacts.$[c].phone", value)), options.UpdateOne().SetArrayFilters([]any{eq("c.kind", "work")}))
		check(err)
		return one(s, eq("contacts.phone", value))
	})
	newer := marker()
	step("find one and update", func(s side) (any, error) {
		var document bson.D
		err := s.c.FindOneAndUpdate(ctx, eq("mrn", field(first, "mrn")), eq("$set", eq("mrn", newer)), options.FindOneAndUpdate().SetReturnDocument(options.After)).Decode(&document)
		return document, err
	})
	replacement := patient(2)
	step("replace with upsert", func(s side) (any, error) {
		r, err := s.c.ReplaceOne(ctx, eq("nhs_number", field(replacement, "nhs_number")), replacement, options.Replace().SetUpsert(true))
		check(err)
		return r.UpsertedID, err
	})
	third := patient(3)
	step("bulk write", func(s side) (any, error) {
		r, err := s.c.BulkWrite(ctx, []mongo.WriteModel{
			mongo.NewInsertOneModel().SetDocument(third),
			mongo.NewUpdateOneModel().SetFilter(eq("nhs_number", field(third, "nhs_number"))).SetUpdate(eq("$set", eq("ward", "Q"))),
			mongo.NewDeleteOneModel().SetFilter(eq("nhs_number", field(replacement, "nhs_number"))),
		})
		check(err)
		return []int64{r.InsertedCount, r.ModifiedCount, r.DeletedCount}, err
	})
	step("delete", func(s side) (any, error) {
		r, err := s.c.DeleteMany(ctx, eq("nhs_number", field(third, "nhs_number")))
		check(err)
		return r.DeletedCount, err
	})
	step("unique index", func(s side) (any, error) {
		_, err := s.c.Indexes().CreateOne(ctx, mongo.IndexModel{Keys: eq("nhs_number", 1), Options: options.Index().SetUnique(true)})
		check(err)
		again := patient(4)
		again[1].Value = field(many[0].(bson.D), "nhs_number")
		_, err = s.c.InsertOne(ctx, again)
		return mongo.IsDuplicateKeyError(err), nil
	})

	inTransaction := patient(10)
	step("transaction committed", func(s side) (any, error) {
		session, err := s.client.StartSession()
		check(err)
		defer session.EndSession(ctx)
		return session.WithTransaction(ctx, func(ctx context.Context) (any, error) {
			if _, err := s.c.InsertOne(ctx, inTransaction); err != nil {
				return nil, err
			}
			var seen bson.D
			err := s.c.FindOne(ctx, eq("nhs_number", field(inTransaction, "nhs_number"))).Decode(&seen)
			return seen, err
		})
	})
	step("transaction aborted", func(s side) (any, error) {
		session, err := s.client.StartSession()
		check(err)
		defer session.EndSession(ctx)
		check(session.StartTransaction())
		within := mongo.NewSessionContext(ctx, session)
		_, err = s.c.UpdateOne(within, eq("nhs_number", field(inTransaction, "nhs_number")), eq("$set", eq("notes", marker())))
		check(err)
		check(session.AbortTransaction(ctx))
		return one(s, eq("_id", 10))
	})

	observed := patient(20)
	observedNumber := marker()
	step("change stream", func(s side) (any, error) {
		stream, err := s.c.Watch(ctx, mongo.Pipeline{}, options.ChangeStream().SetFullDocument(options.UpdateLookup))
		check(err)
		defer stream.Close(ctx)
		_, err = s.c.InsertOne(ctx, observed)
		check(err)
		_, err = s.c.UpdateOne(ctx, eq("_id", 20), eq("$set", eq("nhs_number", observedNumber)))
		check(err)
		_, err = s.c.DeleteOne(ctx, eq("nhs_number", observedNumber))
		check(err)
		events := []bson.D{}
		within, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		for len(events) < 3 && stream.Next(within) {
			var event bson.D
			check(stream.Decode(&event))
			kept := bson.D{}
			for _, key := range []string{"operationType", "documentKey", "fullDocument", "updateDescription"} {
				// The lookup is of the document as it is by now, which may be gone already.
				if key == "fullDocument" && field(event, "operationType") != "insert" {
					continue
				}
				kept = append(kept, bson.E{Key: key, Value: field(event, key)})
			}
			events = append(events, kept)
		}
		return events, stream.Err()
	})

	steps++
	_, err := one(sealed, eq("nhs_number", eq("$gt", marker())))
	var server mongo.CommandError
	if errors.As(err, &server) && strings.HasPrefix(server.Message, "fieldveil: ") && strings.Contains(server.Message, "nhs_number") && strings.Contains(server.Message, "$gt") {
		fmt.Println("ok a refusal names field and operator")
	} else {
		failed++
		fmt.Println("not ok a refusal names field and operator:", err)
	}

	check(sealed.client.Disconnect(ctx))
	check(plain.client.Disconnect(ctx))
	fmt.Printf("%d steps, %d failed\n", steps, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
