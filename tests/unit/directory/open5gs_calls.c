/* The calls that Open5GS's NFs make of their database, in the order of a registration, with libmongoc itself.
 * Usage: open5gs_calls URI IMSI MSISDN [unfollowed: without change streams]. Prints one line a finding; exit code 1 at the first that is wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <mongoc/mongoc.h>

static mongoc_collection_t *subscribers;

static void check(bool right, const char *what, const char *detail)
{
    printf("%s %s %s\n", right ? "ok" : "WRONG", what, detail ? detail : "");
    if (!right)
        exit(1);
}

static bson_t *look_up(const bson_t *query)
{
    bson_error_t error;
    const bson_t *found = NULL;
    bson_t *copy = NULL;
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(subscribers, query, NULL, NULL);

    if (mongoc_cursor_next(cursor, &found))
        copy = bson_copy(found);
    check(!mongoc_cursor_error(cursor, &error), "find", mongoc_cursor_error(cursor, &error) ? error.message : "");
    mongoc_cursor_destroy(cursor);
    return copy;
}

static bson_t *by_imsi(const char *imsi)
{
    bson_t *query = BCON_NEW("imsi", BCON_UTF8(imsi));
    bson_t *found = look_up(query);

    bson_destroy(query);
    return found;
}

static int64_t sqn_of(const char *imsi)
{
    bson_iter_t top, at;
    bson_t *document = by_imsi(imsi);
    int64_t sqn;

    check(document && bson_iter_init(&top, document), "document", "");
    check(bson_iter_find_descendant(&top, "security.sqn", &at) && BSON_ITER_HOLDS_INT64(&at), "sqn is int64", "");
    sqn = bson_iter_int64(&at);
    bson_destroy(document);
    return sqn;
}

static void update(const char *imsi, bson_t *change, mongoc_update_flags_t flags, const char *what)
{
    bson_error_t error;
    bson_t *query = BCON_NEW("imsi", BCON_UTF8(imsi));
    bool done = mongoc_collection_update(subscribers, flags, query, change, NULL, &error);

    check(done, what, done ? "" : error.message);
    bson_destroy(query);
    bson_destroy(change);
}

static void holds(const bson_t *document, const char *path, bson_type_t type)
{
    bson_iter_t top, at;

    check(bson_iter_init(&top, document) && bson_iter_find_descendant(&top, path, &at), "has", path);
    check(bson_iter_type(&at) == type, "right type", path);
}

static void types(const char *imsi, const char *msisdn)
{
    static const char *numbers[] = {
        "access_restriction_data", "subscriber_status", "operator_determined_barring", "network_access_mode",
        "subscribed_rau_tau_timer", "ambr.downlink.value", "ambr.uplink.unit", "slice.0.sst",
        "slice.0.session.0.type", "slice.0.session.0.qos.index", "slice.0.session.0.qos.arp.priority_level",
        "slice.0.session.0.ambr.uplink.value", NULL
    };
    bson_t *either = BCON_NEW("$or", "[", "{", "imsi", BCON_UTF8(msisdn), "}", "{", "msisdn", BCON_UTF8(msisdn),
                              "}", "]");
    bson_t *document = look_up(either);
    bson_iter_t top, at;
    int i;

    check(document != NULL, "found by number", msisdn);
    check(bson_iter_init_find(&top, document, "imsi") && !strcmp(bson_iter_utf8(&top, NULL), imsi), "imsi", imsi);
    for (i = 0; numbers[i]; i++)
        holds(document, numbers[i], BSON_TYPE_INT32);
    holds(document, "msisdn", BSON_TYPE_ARRAY);
    holds(document, "msisdn.0", BSON_TYPE_UTF8);
    holds(document, "security.k", BSON_TYPE_UTF8);
    holds(document, "security.opc", BSON_TYPE_UTF8);
    holds(document, "security.amf", BSON_TYPE_UTF8);
    holds(document, "slice.0.sd", BSON_TYPE_UTF8);
    holds(document, "slice.0.default_indicator", BSON_TYPE_BOOL);
    holds(document, "slice.0.session.0.name", BSON_TYPE_UTF8);
    check(bson_iter_init(&top, document) && bson_iter_find_descendant(&top, "security.opc", &at)
              && strlen(bson_iter_utf8(&at, NULL)) == 32, "opc has 32 digits", "");
    bson_destroy(either);
    bson_destroy(document);
}

static void follow(const char *imsi)
{
    bson_t pipeline = BSON_INITIALIZER;
    bson_t *options = BCON_NEW("fullDocument", "updateLookup");
    mongoc_change_stream_t *stream = mongoc_collection_watch(subscribers, &pipeline, options);
    const bson_t *event = NULL, *detail = NULL;
    bson_error_t error;
    bson_iter_t top, at;
    int i;

    check(!mongoc_change_stream_error_document(stream, &error, &detail), "watch", "");
    check(!mongoc_change_stream_next(stream, &event), "nothing has changed yet", "");
    update(imsi, BCON_NEW("$set", "{", "subscriber_status", BCON_INT32(1), "}"), MONGOC_UPDATE_NONE, "suspend");
    for (i = 0; i < 100 && !mongoc_change_stream_next(stream, &event); i++)
        check(!mongoc_change_stream_error_document(stream, &error, &detail), "stream goes on", "");
    check(event != NULL, "change seen", "");
    check(bson_iter_init(&top, event) && bson_iter_find_descendant(&top, "fullDocument.imsi", &at)
              && !strcmp(bson_iter_utf8(&at, NULL), imsi), "change is the subscriber's", imsi);
    check(bson_iter_init(&top, event)
              && bson_iter_find_descendant(&top, "updateDescription.updatedFields.subscriber_status", &at)
              && BSON_ITER_HOLDS_INT32(&at), "change says what", "");
    mongoc_change_stream_destroy(stream);
    bson_destroy(options);
    bson_destroy(&pipeline);
}

int main(int argc, char **argv)
{
    mongoc_client_t *client;
    bson_t command = BSON_INITIALIZER, reply;
    bson_error_t error;
    bson_t *document;
    bool pinged;

    if (argc < 4)
        return 2;
    mongoc_init();
    client = mongoc_client_new(argv[1]);
    check(client != NULL, "uri", "");
    mongoc_client_set_error_api(client, 2);
    BSON_APPEND_INT32(&command, "ping", 1);
    pinged = mongoc_client_command_simple(client, "admin", &command, NULL, &reply, &error);
    check(pinged, "ping", pinged ? "" : error.message);
    bson_destroy(&reply);
    bson_destroy(&command);
    subscribers = mongoc_client_get_collection(client, mongoc_uri_get_database(mongoc_client_get_uri(client)),
                                               "subscribers");

    check(by_imsi("999999999999999") == NULL, "a stranger is not found", "");
    types(argv[2], argv[3]);
    update(argv[2], BCON_NEW("$set", "{", "security.sqn", BCON_INT64(281474976710655), "}"), MONGOC_UPDATE_NONE,
           "set sqn");
    check(sqn_of(argv[2]) == 281474976710655, "sqn as set", "");
    update(argv[2], BCON_NEW("$inc", "{", "security.sqn", BCON_INT64(32), "}"), MONGOC_UPDATE_NONE, "increment sqn");
    update(argv[2], BCON_NEW("$bit", "{", "security.sqn", "{", "and", BCON_INT64(281474976710655), "}", "}"),
           MONGOC_UPDATE_NONE, "cut sqn to 48 bits");
    check(sqn_of(argv[2]) == 31, "sqn after the turn", "");
    update(argv[2], BCON_NEW("$set", "{", "imeisv", BCON_UTF8("4370816125816151"), "}"), MONGOC_UPDATE_UPSERT,
           "set imeisv");
    update(argv[2], BCON_NEW("$set", "{", "mme_host", BCON_UTF8("mme.example"), "mme_realm", BCON_UTF8("example"),
                             "mme_timestamp", BCON_INT64(1700000000000000), "purge_flag", BCON_BOOL(false), "}"),
           MONGOC_UPDATE_UPSERT, "set mme");
    document = by_imsi(argv[2]);
    holds(document, "imeisv", BSON_TYPE_UTF8);
    holds(document, "mme_host", BSON_TYPE_UTF8);
    holds(document, "mme_timestamp", BSON_TYPE_INT64);
    holds(document, "purge_flag", BSON_TYPE_BOOL);
    bson_destroy(document);
    if (argc == 4)
        follow(argv[2]);

    mongoc_collection_destroy(subscribers);
    mongoc_client_destroy(client);
    mongoc_cleanup();
    return 0;
}
