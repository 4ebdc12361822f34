/* A PKCS#11 module that forwards to another one and fails as it is told.
 *
 * FAULTS_MODULE names the module behind it, FAULTS_CONTROL a file that is mapped by every process
 * that loads the shim and by the test (tests/faults/control.py has the same layout): one entry for
 * each function, in the order of CK_FUNCTION_LIST (PKCS#11 v2.40, 6.3), so that a fault takes effect
 * at once and in all workers together, and calls are counted over all of them.
 *
 * Every function is called with eight words, the most that any takes: the platform's C ABIs let a
 * callee ignore what it was not meant to get.
 */

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long word;
typedef word (*function)(word, word, word, word, word, word, word, word);

#define FUNCTIONS 68
#define OBJECT_HANDLE_INVALID 0x82
#define TOKEN_NOT_PRESENT 0xE0
#define DEVICE_ERROR 0x30

enum action { NONE, RETURN, RETURN_AFTER, DELAY, HANG, SEGV, ABORT, EXIT, LENGTH };

struct entry {
    _Atomic int64_t calls;     /* so far, of all processes */
    _Atomic int64_t pass;      /* calls that go through before the fault begins */
    _Atomic int64_t remaining; /* calls that the fault still hits; negative: all of them */
    _Atomic int64_t action;
    _Atomic int64_t argument;
};

struct control {
    struct entry entries[FUNCTIONS];
    _Atomic int64_t absent;            /* the token is unplugged */
    _Atomic int64_t sessions_epoch;    /* one more: every session is forgotten */
    _Atomic int64_t handles_epoch;     /* one more: every object handle given so far is stale */
    _Atomic int64_t initialised_epoch; /* one more: nothing works before C_Initialize comes again */
};

struct function_list {
    unsigned char version[2];
    function functions[FUNCTIONS];
};

static struct control *control;
static struct function_list *real, ours;
static int64_t sessions_seen, initialised_in;

/* Indices of the list; those between them that are not named only pass. */
enum { INITIALIZE, FINALIZE, GET_INFO, GET_FUNCTION_LIST, GET_SLOT_LIST, GET_SLOT_INFO, GET_TOKEN_INFO,
       OPEN_SESSION = 12, CLOSE_ALL_SESSIONS = 14, CREATE = 20, COPY, DESTROY, GET_SIZE, GET_ATTRIBUTES,
       SET_ATTRIBUTES, FIND_INIT, FIND, ENCRYPT_INIT = 29, ENCRYPT, DECRYPT_INIT = 33, DECRYPT,
       DIGEST = 38, DIGEST_KEY = 40, SIGN_INIT = 42, SIGN, SIGN_FINAL = 45, VERIFY_INIT = 48, GENERATE = 58,
       GENERATE_PAIR, WRAP, UNWRAP, DERIVE };

/* Object handles get the epoch in which they were given, so that older ones can be told. */
static word outward(word handle) { return handle | (word)atomic_load(&control->handles_epoch) << 40; }

static int inward(word *handle)
{
    word epoch = *handle >> 40;
    *handle &= ((word)1 << 40) - 1;
    return epoch == (word)atomic_load(&control->handles_epoch) || *handle == 0;
}

static int handles_in(int number, word *w)
{
    switch (number) {
    case COPY: case DESTROY: case GET_SIZE: case GET_ATTRIBUTES: case SET_ATTRIBUTES: case DIGEST_KEY:
        return inward(&w[1]);
    case ENCRYPT_INIT: case DECRYPT_INIT: case SIGN_INIT: case VERIFY_INIT: case UNWRAP: case DERIVE:
        return inward(&w[2]);
    case WRAP:
        return inward(&w[2]) & inward(&w[3]);
    }
    return 1;
}

static void handle_out(word address)
{
    if (address)
        *(word *)address = outward(*(word *)address);
}

static void handles_out(int number, word *w)
{
    switch (number) {
    case CREATE: case GENERATE: handle_out(w[number == CREATE ? 3 : 4]); break;
    case COPY: handle_out(w[4]); break;
    case GENERATE_PAIR: handle_out(w[6]); handle_out(w[7]); break;
    case UNWRAP: handle_out(w[7]); break;
    case DERIVE: handle_out(w[5]); break;
    case FIND:
        for (word i = 0; i < *(word *)w[3]; i++)
            handle_out(w[1] + i * sizeof(word));
    }
}

/* Where a function writes a length or a count; 0 where it has none. */
static word *length_of(int number, word *w)
{
    switch (number) {
    case GET_SLOT_LIST: return (word *)w[2];
    case FIND: return (word *)w[3];
    case ENCRYPT: case DECRYPT: case DIGEST: case SIGN: return (word *)w[4];
    case SIGN_FINAL: return (word *)w[2];
    case WRAP: return (word *)w[5];
    case GET_ATTRIBUTES: return (word *)(w[2] + 2 * sizeof(word)); /* ulValueLen of the first one */
    }
    return 0;
}

static void delay(int64_t milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, 0);
}

/* Take one hit of an entry's fault; NONE if this call passes. */
static enum action hit(struct entry *entry)
{
    atomic_fetch_add(&entry->calls, 1);
    if (atomic_load(&entry->action) == NONE)
        return NONE;
    if (atomic_load(&entry->pass) > 0 && atomic_fetch_sub(&entry->pass, 1) > 0)
        return NONE;
    int64_t remaining = atomic_load(&entry->remaining);
    while (remaining > 0)
        if (atomic_compare_exchange_weak(&entry->remaining, &remaining, remaining - 1))
            return (enum action)atomic_load(&entry->action);
    return remaining < 0 ? (enum action)atomic_load(&entry->action) : NONE;
}

static void forget_sessions(void)
{
    int64_t epoch = atomic_load(&control->sessions_epoch);
    if (epoch == sessions_seen)
        return;
    sessions_seen = epoch;
    word slots[64], count = 64;
    if (real->functions[GET_SLOT_LIST](1, (word)slots, (word)&count, 0, 0, 0, 0, 0) == 0)
        for (word i = 0; i < count; i++)
            real->functions[CLOSE_ALL_SESSIONS](slots[i], 0, 0, 0, 0, 0, 0, 0);
}

static word unplugged(int number, word *w)
{
    if (number == GET_SLOT_LIST && w[2]) {
        *(word *)w[2] = 0;
        return 0;
    }
    return number <= OPEN_SESSION ? TOKEN_NOT_PRESENT : DEVICE_ERROR;
}

static word forward(int number, word *w)
{
    if (number == INITIALIZE)
        initialised_in = atomic_load(&control->initialised_epoch);
    if (number > GET_FUNCTION_LIST) {
        if (atomic_load(&control->absent))
            return unplugged(number, w);
        if (initialised_in != atomic_load(&control->initialised_epoch))
            return DEVICE_ERROR;
    }
    if (number >= OPEN_SESSION)
        forget_sessions();
    if (!handles_in(number, w))
        return OBJECT_HANDLE_INVALID;
    word rv = real->functions[number](w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]);
    if (rv == 0)
        handles_out(number, w);
    return rv;
}

static word call(int number, word *w)
{
    struct entry *entry = &control->entries[number];
    int64_t argument = atomic_load(&entry->argument);
    switch (hit(entry)) {
    case RETURN: return (word)argument;
    case RETURN_AFTER: forward(number, w); return (word)argument;
    case DELAY: delay(argument); break;
    case HANG: for (;;) pause();
    case SEGV: raise(SIGSEGV); break;
    case ABORT: abort();
    case EXIT: _exit((int)argument);
    case LENGTH: {
        word rv = forward(number, w), *length = length_of(number, w);
        if (rv == 0 && length)
            *length += (word)argument;
        return rv;
    }
    case NONE: break;
    }
    return forward(number, w);
}

#define F(n)                                                                                    \
    static word f##n(word a, word b, word c, word d, word e, word f, word g, word h)            \
    {                                                                                           \
        word w[] = {a, b, c, d, e, f, g, h};                                                    \
        return call(n, w);                                                                      \
    }
#define EACH(X)                                                                                 \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) \
    X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)   \
    X(32) X(33) X(34) X(35) X(36) X(37) X(38) X(39) X(40) X(41) X(42) X(43) X(44) X(45) X(46)   \
    X(47) X(48) X(49) X(50) X(51) X(52) X(53) X(54) X(55) X(56) X(57) X(58) X(59) X(60) X(61)   \
    X(62) X(63) X(64) X(65) X(66) X(67)
EACH(F)

#define SET(n) ours.functions[n] = f##n;

static word map_control(const char *path)
{
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return DEVICE_ERROR;
    void *memory = mmap(0, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED)
        return DEVICE_ERROR;
    control = memory;
    sessions_seen = atomic_load(&control->sessions_epoch);
    return 0;
}

word C_GetFunctionList(struct function_list **list)
{
    if (!real) {
        const char *module = getenv("FAULTS_MODULE");
        void *library = module ? dlopen(module, RTLD_NOW | RTLD_LOCAL) : 0;
        word (*get)(struct function_list **) =
            library ? (word(*)(struct function_list **))dlsym(library, "C_GetFunctionList") : 0;
        if (!get || map_control(getenv("FAULTS_CONTROL")) != 0 || get(&real) != 0)
            return DEVICE_ERROR;
        ours.version[0] = real->version[0];
        ours.version[1] = real->version[1];
        EACH(SET)
        ours.functions[GET_FUNCTION_LIST] = (function)(void *)C_GetFunctionList;
    }
    *list = &ours;
    return 0;
}
