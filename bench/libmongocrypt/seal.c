/* Nanoseconds of processor time per value sealed through libmongocrypt's explicit encryption, without a driver and
 * without Python: one context per value, the data key already in the library's cache. That is what a driver's
 * ClientEncryption.encrypt does underneath.
 *
 * The library is loaded at run time (first argument), so that neither its headers nor one version of it is needed:
 *     cc -O2 -o seal seal.c -ldl && ./seal .../libmongocrypt.so
 * One JSON object per line goes to stdout. Every ciphertext length is checked, and each kind is opened again. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The part of the library's stable C interface that is used here; see mongocrypt.h. */
enum { NEED_KEYS = 3, READY = 5 };
#define INTERFACE(F)                                                    \
    F(const char *, version, (uint32_t *))                              \
    F(void *, new, (void))                                              \
    F(void, destroy, (void *))                                          \
    F(bool, setopt_kms_provider_local, (void *, void *))                \
    F(bool, init, (void *))                                             \
    F(void *, binary_new_from_data, (uint8_t *, uint32_t))              \
    F(void *, binary_new, (void))                                       \
    F(uint8_t *, binary_data, (void *))                                 \
    F(uint32_t, binary_len, (void *))                                   \
    F(void, binary_destroy, (void *))                                   \
    F(void *, status_new, (void))                                       \
    F(const char *, status_message, (void *, uint32_t *))               \
    F(void *, ctx_new, (void *))                                        \
    F(bool, ctx_status, (void *, void *))                               \
    F(int, ctx_state, (void *))                                         \
    F(bool, ctx_setopt_masterkey_local, (void *))                       \
    F(bool, ctx_datakey_init, (void *))                                 \
    F(bool, ctx_setopt_key_id, (void *, void *))                        \
    F(bool, ctx_setopt_algorithm, (void *, const char *, int))          \
    F(bool, ctx_explicit_encrypt_init, (void *, void *))                \
    F(bool, ctx_explicit_decrypt_init, (void *, void *))                \
    F(bool, ctx_mongo_feed, (void *, void *))                           \
    F(bool, ctx_mongo_done, (void *))                                   \
    F(bool, ctx_finalize, (void *, void *))                             \
    F(void, ctx_destroy, (void *))
#define DECLARE(result, name, arguments) static result(*mc_##name) arguments;
INTERFACE(DECLARE)

static void fail(const char *what) {
    fprintf(stderr, "seal: %s\n", what);
    exit(1);
}

static void fail_in(void *context, const char *what) {
    void *status = mc_status_new();
    mc_ctx_status(context, status);
    fprintf(stderr, "seal: %s: %s\n", what, mc_status_message(status, NULL));
    exit(1);
}

static void load(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail(dlerror());
#define LOAD(result, name, arguments)                                            \
    *(void **)(&mc_##name) = dlsym(library, "mongocrypt_" #name);                \
    if (!mc_##name) fail("the library lacks mongocrypt_" #name);
    INTERFACE(LOAD)
}

/* The data key's document, as a driver would store it in the key vault. */
static void *create_key(void *crypt, uint8_t id[16]) {
    void *context = mc_ctx_new(crypt), *output = mc_binary_new();
    if (!mc_ctx_setopt_masterkey_local(context) || !mc_ctx_datakey_init(context) || mc_ctx_state(context) != READY ||
        !mc_ctx_finalize(context, output))
        fail_in(context, "creating a data key");
    uint32_t length = mc_binary_len(output);
    uint8_t *document = malloc(length);
    memcpy(document, mc_binary_data(output), length);
    mc_binary_destroy(output);
    mc_ctx_destroy(context);
    /* `_id` comes first, a UUID: length, 0x05, "_id", 16, subtype 4. */
    if (length < 30 || memcmp(document + 4, "\x05_id\0\x10\0\0\0\x04", 10) != 0) fail("an unexpected key document");
    memcpy(id, document + 14, 16);
    return mc_binary_new_from_data(document, length);
}

/* {"v": <string of `size` bytes>} */
static uint32_t value(uint8_t *into, uint32_t size) {
    uint32_t total = 4 + 3 + 4 + size + 1 + 1, length = size + 1;
    memcpy(into, &total, 4);
    memcpy(into + 4, "\x02v", 3);
    memcpy(into + 7, &length, 4);
    memset(into + 11, 'x', size);
    into[11 + size] = 0;
    into[12 + size] = 0;
    return total;
}

/* Runs a context to its end; the output is copied to `into` when that is given. */
static uint32_t finish(void *context, void *key, uint8_t *into) {
    if (mc_ctx_state(context) == NEED_KEYS && (!mc_ctx_mongo_feed(context, key) || !mc_ctx_mongo_done(context)))
        fail_in(context, "feeding the data key");
    void *output = mc_binary_new();
    if (mc_ctx_state(context) != READY || !mc_ctx_finalize(context, output)) fail_in(context, "finishing");
    uint32_t length = mc_binary_len(output);
    if (into) memcpy(into, mc_binary_data(output), length);
    mc_binary_destroy(output);
    mc_ctx_destroy(context);
    return length;
}

static uint32_t seal(void *crypt, void *key, void *id, const char *algorithm, void *input, uint8_t *into) {
    void *context = mc_ctx_new(crypt);
    if (!mc_ctx_setopt_key_id(context, id) || !mc_ctx_setopt_algorithm(context, algorithm, -1) ||
        !mc_ctx_explicit_encrypt_init(context, input))
        fail_in(context, "encrypting");
    return finish(context, key, into);
}

static double spent(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(void *crypt, void *key, void *id, const char *algorithm, uint32_t size, int count) {
    enum { ROUNDS = 9 };
    static uint8_t plain[70000], sealed[80000], opened[80000];
    uint32_t plain_length = value(plain, size);
    void *input = mc_binary_new_from_data(plain, plain_length);
    uint32_t sealed_length = seal(crypt, key, id, algorithm, input, sealed);

    void *context = mc_ctx_new(crypt), *back = mc_binary_new_from_data(sealed, sealed_length);
    if (!mc_ctx_explicit_decrypt_init(context, back)) fail_in(context, "decrypting");
    if (finish(context, key, opened) != plain_length || memcmp(plain, opened, plain_length) != 0)
        fail("a value came back changed");
    mc_binary_destroy(back);

    double rounds[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        double begun = spent();
        for (int i = 0; i < count; i++)
            if (seal(crypt, key, id, algorithm, input, NULL) != sealed_length) fail("a ciphertext changed its length");
        rounds[round] = (spent() - begun) / count;
    }
    qsort(rounds, ROUNDS, sizeof *rounds, ascending);
    mc_binary_destroy(input);
    printf("{\"by\": \"libmongocrypt %s, C\", \"algorithm\": \"%s\", \"bytes\": %u, \"ns\": %.0f, \"least_ns\": %.0f}\n",
           mc_version(NULL), algorithm, size, rounds[ROUNDS / 2], rounds[0]);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc < 2) fail("usage: seal LIBRARY [COUNT]");
    int count = argc > 2 ? atoi(argv[2]) : 20000;
    if (count < 1) fail("COUNT must be at least 1");
    load(argv[1]);

    uint8_t master[96], uuid[16];
    memset(master, 7, sizeof master);
    void *crypt = mc_new(), *local = mc_binary_new_from_data(master, sizeof master);
    if (!mc_setopt_kms_provider_local(crypt, local) || !mc_init(crypt)) fail("the library does not start");
    void *key = create_key(crypt, uuid), *id = mc_binary_new_from_data(uuid, sizeof uuid);

    static const char *const algorithms[] = {"AEAD_AES_256_CBC_HMAC_SHA_512-Deterministic",
                                             "AEAD_AES_256_CBC_HMAC_SHA_512-Random"};
    static const uint32_t sizes[] = {10, 100, 1024, 65536};
    for (int a = 0; a < 2; a++)
        for (int s = 0; s < 4; s++) measure(crypt, key, id, algorithms[a], sizes[s], sizes[s] > 10000 ? count / 20 + 1 : count);
    mc_destroy(crypt);
    return 0;
}
