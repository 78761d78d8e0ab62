/*
 * SCTP's one-to-one sockets over TCP, for programs that use the lksctp interface on kernels without SCTP. For
 * laboratories: no multi-homing, no streams that overtake each other, and only between two programs that preload this.
 *
 *     LD_PRELOAD=libsctp-over-tcp.so program
 *
 * On the wire each message is a header of 16 octets (big endian) and its data:
 *     0  magic "SoT1"   4  length of the data   8  payload protocol identifier, as given   12  stream   14  kind
 * Both sides send a HELLO first; its arrival is the SCTP_COMM_UP notification. Anything else at the start, a length
 * beyond LARGEST, or the end of the stream in the middle of a message is SCTP_COMM_LOST.
 *
 * Interface: RFC 6458. A reader never takes more from the kernel than the message that it is reading, and leaves its last
 * octet there until the program has the whole of it, so that poll and epoll tell the truth about what is left.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/sctp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))
#define HEADER 16u
#define LARGEST (1u << 20)
#define STREAMS 10
#define SOCKETS 65536
/* A peer that takes nothing for so long in the middle of a message is gone. */
#define STUCK_MS 10000

static const char MAGIC[4] = {'S', 'o', 'T', '1'};
enum kind { DATA = 0, HELLO = 1 };
enum state { FRESH, UP, DOWN };

struct association {
    pthread_mutex_t in, out;
    bool open;           /* a descriptor of ours; the place itself is kept, as threads may still hold its locks */
    enum state state;    /* as told to the program */
    bool greeted;        /* our HELLO is out */
    bool listening;
    bool tells;          /* subscribed to SCTP_ASSOC_CHANGE */
    int id;
    pid_t owner;         /* the process that made it */
    struct sockaddr_storage peer; /* kept, as the kernel forgets it with the connection */
    socklen_t peer_length;
    unsigned char header[HEADER];
    size_t have;         /* octets of the header that are there */
    unsigned char *data;
    size_t length, got;  /* of the data: announced, there */
    size_t given;        /* of a whole message: handed to the program already */
};

static struct association *table[SOCKETS];
static int next_id;

static int (*real_socket)(int, int, int);
static int (*real_accept4)(int, struct sockaddr *, socklen_t *, int);
static int (*real_connect)(int, const struct sockaddr *, socklen_t);
static int (*real_listen)(int, int);
static int (*real_close)(int);
static int (*real_setsockopt)(int, int, int, const void *, socklen_t);
static int (*real_getsockopt)(int, int, int, void *, socklen_t *);

static void load(void *where, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(where, &found, sizeof found);
}

static void load_all(void)
{
    load(&real_socket, "socket");
    load(&real_accept4, "accept4");
    load(&real_connect, "connect");
    load(&real_listen, "listen");
    load(&real_setsockopt, "setsockopt");
    load(&real_getsockopt, "getsockopt");
    load(&real_close, "close"); /* the last: `loaded` asks for it */
}

/* Constructors of other libraries run before ours. */
static void loaded(void)
{
    if (!real_close)
        load_all();
}

__attribute__((constructor)) static void start(void)
{
    loaded();
    if (!getenv("SCTP_OVER_TCP_QUIET"))
        fputs("sctp-over-tcp: SCTP is carried over TCP; for laboratories only\n", stderr);
}

static struct association *find(int fd)
{
    struct association *a = fd >= 0 && fd < SOCKETS ? __atomic_load_n(&table[fd], __ATOMIC_ACQUIRE) : NULL;
    return a && __atomic_load_n(&a->open, __ATOMIC_ACQUIRE) ? a : NULL;
}

static void forget_message(struct association *a)
{
    free(a->data);
    a->data = NULL;
    a->have = a->got = a->given = a->length = 0;
}

/* The kernel gave this number anew: what we knew was closed behind our back (dup2, close_range, a parent's). */
static void disown(int fd)
{
    struct association *a = find(fd);
    if (a)
        __atomic_store_n(&a->open, false, __ATOMIC_RELEASE);
}

static struct association *adopt(int fd)
{
    int on = 1;
    struct association *a;

    if (fd < 0 || fd >= SOCKETS) {
        errno = ENFILE;
        return NULL;
    }
    a = table[fd];
    if (!a && !(a = calloc(1, sizeof *a)))
        return NULL;
    if (a->owner != getpid()) {
        /* New, or a parent's, whose threads may have held the locks when it forked. */
        pthread_mutex_init(&a->in, NULL);
        pthread_mutex_init(&a->out, NULL);
        a->owner = getpid();
    }
    pthread_mutex_lock(&a->in);
    pthread_mutex_lock(&a->out);
    forget_message(a);
    a->state = FRESH;
    a->greeted = a->listening = a->tells = false;
    a->peer_length = 0;
    pthread_mutex_unlock(&a->out);
    pthread_mutex_unlock(&a->in);
    a->id = __atomic_add_fetch(&next_id, 1, __ATOMIC_RELAXED);
    real_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    real_setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    __atomic_store_n(&a->open, true, __ATOMIC_RELEASE);
    __atomic_store_n(&table[fd], a, __ATOMIC_RELEASE);
    return a;
}

/* Write all of it. Nothing written and the socket not ready: -1 with EAGAIN, as a message is sent whole or not at all. */
static int write_whole(int fd, struct iovec *part, int parts)
{
    bool begun = false;

    while (parts) {
        struct msghdr message = {.msg_iov = part, .msg_iovlen = (size_t)parts};
        ssize_t written = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (written < 0) {
            if (errno == EINTR)
                continue;
            if (!begun)
                return -1;
            if (errno != EAGAIN && errno != EWOULDBLOCK) {
                /* The next message would be taken for the rest of this one. */
                int kept = errno;
                shutdown(fd, SHUT_RDWR);
                errno = kept;
                return -1;
            }
            struct pollfd ready = {.fd = fd, .events = POLLOUT};
            int found = poll(&ready, 1, STUCK_MS);
            if (found < 0 && errno == EINTR)
                continue;
            if (found <= 0) {
                shutdown(fd, SHUT_RDWR);
                errno = ECONNRESET;
                return -1;
            }
            continue;
        }
        begun = true;
        while (parts && (size_t)written >= part->iov_len) {
            written -= (ssize_t)part->iov_len;
            part++;
            parts--;
        }
        if (parts) {
            part->iov_base = (char *)part->iov_base + written;
            part->iov_len -= (size_t)written;
        }
    }
    return 0;
}

static void fill_header(unsigned char *header, size_t length, uint32_t ppid, uint16_t stream, enum kind kind)
{
    uint32_t length_n = htonl((uint32_t)length);
    uint16_t stream_n = htons(stream), kind_n = htons((uint16_t)kind);

    memcpy(header, MAGIC, 4);
    memcpy(header + 4, &length_n, 4);
    memcpy(header + 8, &ppid, 4);
    memcpy(header + 12, &stream_n, 2);
    memcpy(header + 14, &kind_n, 2);
}

/* With the `out` lock held. */
static int greet(int fd, struct association *a)
{
    unsigned char header[HEADER];
    struct iovec part = {header, HEADER};

    if (__atomic_load_n(&a->greeted, __ATOMIC_ACQUIRE) || a->listening)
        return 0;
    fill_header(header, 0, 0, 0, HELLO);
    if (write_whole(fd, &part, 1) < 0)
        return -1;
    __atomic_store_n(&a->greeted, true, __ATOMIC_RELEASE);
    return 0;
}

static void try_to_greet(int fd, struct association *a)
{
    int kept = errno;

    /* A reader must not wait for a writer that waits for its peer to read. */
    if (__atomic_load_n(&a->greeted, __ATOMIC_ACQUIRE))
        return;
    pthread_mutex_lock(&a->out);
    greet(fd, a);
    pthread_mutex_unlock(&a->out);
    errno = kept;
}

/* The peer's address as accept and recvmsg give it: cut to the room, the whole length told. */
static void give_address(const struct association *a, struct sockaddr *address, socklen_t *length)
{
    if (!address || !length)
        return;
    memcpy(address, &a->peer, *length < a->peer_length ? *length : a->peer_length);
    *length = a->peer_length;
}

/* Sockets -------------------------------------------------------------------------------------------------------- */

PUBLIC int socket(int domain, int type, int protocol)
{
    int fd;

    loaded();
    if (protocol != IPPROTO_SCTP) {
        fd = real_socket(domain, type, protocol);
        disown(fd);
        return fd;
    }
    if ((type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_STREAM) {
        fputs("sctp-over-tcp: only one-to-one sockets (SOCK_STREAM) are carried\n", stderr);
        errno = ESOCKTNOSUPPORT;
        return -1;
    }
    fd = real_socket(domain, type, IPPROTO_TCP);
    if (fd >= 0 && !adopt(fd)) {
        real_close(fd);
        errno = ENFILE;
        return -1;
    }
    return fd;
}

PUBLIC int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    struct association *a = find(fd), *b;
    struct sockaddr_storage peer = {0};
    socklen_t peer_length = sizeof peer;
    int made;

    loaded();
    if (!a) {
        made = real_accept4(fd, address, length, flags);
        disown(made);
        return made;
    }
    made = real_accept4(fd, (struct sockaddr *)&peer, &peer_length, flags);
    if (made < 0)
        return -1;
    if (!(b = adopt(made))) {
        real_close(made);
        errno = ENFILE;
        return -1;
    }
    b->tells = a->tells;
    b->peer = peer;
    b->peer_length = peer_length;
    give_address(b, address, length);
    try_to_greet(made, b);
    return made;
}

PUBLIC int accept(int fd, struct sockaddr *address, socklen_t *length)
{
    return accept4(fd, address, length, 0);
}

PUBLIC int listen(int fd, int backlog)
{
    struct association *a = find(fd);

    loaded();
    if (a)
        a->listening = true;
    return real_listen(fd, backlog);
}

PUBLIC int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    struct association *a = find(fd);
    int done;

    loaded();
    done = real_connect(fd, address, length);
    if (a && (done == 0 || errno == EINPROGRESS) && length <= sizeof a->peer) {
        memcpy(&a->peer, address, length);
        a->peer_length = length;
    }
    if (a && done == 0)
        try_to_greet(fd, a);
    return done;
}

PUBLIC int close(int fd)
{
    struct association *a = find(fd);

    loaded();
    /* A child that closes what it inherited leaves the connection to its parent (after vfork even this memory). */
    if (a && a->owner == getpid()) {
        __atomic_store_n(&a->open, false, __ATOMIC_RELEASE);
        /* A thread may be reading still: wake it, and wait until it has left. */
        shutdown(fd, SHUT_RDWR);
        pthread_mutex_lock(&a->in);
        pthread_mutex_lock(&a->out);
        forget_message(a);
        pthread_mutex_unlock(&a->out);
        pthread_mutex_unlock(&a->in);
    }
    return real_close(fd);
}

/* RFC 6458, sections 6.2.1 (SCTP_EVENTS) and 6.2.2 (SCTP_EVENT). */
static int subscribe(struct association *a, int name, const void *value, socklen_t length)
{
    if (name == SCTP_EVENTS) {
        struct sctp_event_subscribe events = {0};
        /* Its size grew with the kernels: a program may know fewer or more events. */
        if (length <= offsetof(struct sctp_event_subscribe, sctp_association_event)) {
            errno = EINVAL;
            return -1;
        }
        memcpy(&events, value, length < sizeof events ? length : sizeof events);
        a->tells = events.sctp_association_event;
    } else {
        struct sctp_event event;
        if (length < sizeof event) {
            errno = EINVAL;
            return -1;
        }
        memcpy(&event, value, sizeof event);
        if (event.se_type == SCTP_ASSOC_CHANGE)
            a->tells = event.se_on;
    }
    return 0;
}

PUBLIC int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
    struct association *a = find(fd);

    loaded();
    if (!a || level != IPPROTO_SCTP)
        return real_setsockopt(fd, level, name, value, length);
    if (name == SCTP_NODELAY)
        return real_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, value, length);
    if (name == SCTP_EVENTS || name == SCTP_EVENT)
        return subscribe(a, name, value, length);
    return 0;
}

PUBLIC int getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
    struct association *a = find(fd);

    loaded();
    if (!a || level != IPPROTO_SCTP)
        return real_getsockopt(fd, level, name, value, length);
    memset(value, 0, *length);
    if (name == SCTP_STATUS) {
        struct sctp_status *status = value;
        if (*length < sizeof *status) {
            errno = EINVAL;
            return -1;
        }
        status->sstat_assoc_id = a->id;
        status->sstat_state = SCTP_ESTABLISHED;
        status->sstat_instrms = status->sstat_outstrms = STREAMS;
        status->sstat_primary.spinfo_state = SCTP_ACTIVE;
        *length = sizeof *status;
    }
    return 0;
}

/* libsctp's calls ------------------------------------------------------------------------------------------------- */

static socklen_t size_of(const struct sockaddr *address)
{
    return address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

PUBLIC int sctp_bindx(int fd, struct sockaddr *addresses, int count, int flags)
{
    if (flags == SCTP_BINDX_REM_ADDR)
        return 0;
    if (count < 1) {
        errno = EINVAL;
        return -1;
    }
    if (count > 1)
        fputs("sctp-over-tcp: only the first of several addresses is bound\n", stderr);
    return bind(fd, addresses, size_of(addresses));
}

PUBLIC int sctp_connectx(int fd, struct sockaddr *addresses, int count, sctp_assoc_t *id)
{
    int done = -1;
    struct association *a = find(fd);

    errno = EINVAL;
    for (int i = 0; i < count && done < 0; i++) {
        done = connect(fd, addresses, size_of(addresses));
        if (done < 0 && errno == EINPROGRESS)
            break;
        addresses = (struct sockaddr *)((char *)addresses + size_of(addresses));
    }
    if (done == 0 && id)
        *id = a ? a->id : 0;
    return done;
}

PUBLIC int sctp_opt_info(int fd, sctp_assoc_t id, int name, void *value, socklen_t *length)
{
    (void)id;
    return getsockopt(fd, IPPROTO_SCTP, name, value, length);
}

PUBLIC int sctp_sendmsg(int fd, const void *data, size_t length, struct sockaddr *to, socklen_t to_length,
                        uint32_t ppid, uint32_t flags, uint16_t stream, uint32_t lifetime, uint32_t context)
{
    unsigned char header[HEADER];
    struct iovec parts[2] = {{header, HEADER}, {(void *)(uintptr_t)data, length}};
    struct association *a = find(fd);
    int done;

    (void)to, (void)to_length, (void)lifetime, (void)context;
    if (!a) {
        errno = EBADF;
        return -1;
    }
    if (flags & (SCTP_EOF | SCTP_ABORT))
        return shutdown(fd, SHUT_RDWR);
    if (!length || length > LARGEST) {
        errno = length ? EMSGSIZE : EINVAL;
        return -1;
    }
    fill_header(header, length, ppid, stream, DATA);
    pthread_mutex_lock(&a->out);
    if (!__atomic_load_n(&a->open, __ATOMIC_ACQUIRE)) {
        errno = EBADF; /* closed while we waited: the number may be another's by now */
        done = -1;
    } else {
        done = greet(fd, a) < 0 ? -1 : write_whole(fd, parts, 2);
    }
    pthread_mutex_unlock(&a->out);
    return done < 0 ? -1 : (int)length;
}

PUBLIC int sctp_send(int fd, const void *data, size_t length, const struct sctp_sndrcvinfo *info, int flags)
{
    (void)flags;
    return sctp_sendmsg(fd, data, length, NULL, 0, info ? info->sinfo_ppid : 0, info ? info->sinfo_flags : 0,
                        info ? info->sinfo_stream : 0, 0, 0);
}

/* Octets until `want` are there: 1 whole, 0 the end of the stream, -1 an error (EAGAIN: not yet). */
static int fill(int fd, unsigned char *buffer, size_t *have, size_t want, int how)
{
    while (*have < want) {
        ssize_t got = recv(fd, buffer + *have, want - *have, how);
        if (got == 0)
            return 0;
        if (got < 0) {
            if (errno == EINTR)
                continue;
            return errno == ECONNRESET || errno == ETIMEDOUT ? 0 : -1;
        }
        *have += (size_t)got;
    }
    return 1;
}

/*
 * Read on in the message that is coming, for a buffer of `size`: 1 whole, 0 lost, -1 an error. `how` is MSG_DONTWAIT or
 * nothing. With the `in` lock held.
 */
static int next_message(int fd, struct association *a, size_t size, enum kind *kind, int how)
{
    int found = fill(fd, a->header, &a->have, HEADER, how);
    uint32_t length;
    size_t peeked;
    uint16_t kind_n;

    if (found <= 0)
        return found;
    memcpy(&length, a->header + 4, 4);
    memcpy(&kind_n, a->header + 14, 2);
    *kind = ntohs(kind_n);
    a->length = ntohl(length);
    if (memcmp(a->header, MAGIC, 4) || a->length > LARGEST || *kind > HELLO || (*kind == HELLO) != (a->state == FRESH) ||
        !a->length != (*kind == HELLO)) {
        fputs("sctp-over-tcp: the peer does not speak this; does it preload the library?\n", stderr);
        return 0;
    }
    if (a->length && !a->data && !(a->data = malloc(a->length))) {
        errno = ENOMEM;
        return -1;
    }
    if (size >= a->length - a->given)
        return fill(fd, a->data, &a->got, a->length, how);
    /* Only a part fits: the last octet stays behind, or poll would not tell of the rest. */
    found = fill(fd, a->data, &a->got, a->length - 1, how);
    peeked = a->got;
    return found <= 0 ? found : fill(fd, a->data, &peeked, a->length, how | MSG_PEEK);
}

static int notify(struct association *a, void *buffer, size_t size, int *flags, uint16_t state)
{
    struct sctp_assoc_change change = {
        .sac_type = SCTP_ASSOC_CHANGE,
        .sac_length = sizeof change,
        .sac_state = state,
        .sac_outbound_streams = STREAMS,
        .sac_inbound_streams = STREAMS,
        .sac_assoc_id = a->id,
    };
    size_t length = size < sizeof change ? size : sizeof change;

    memcpy(buffer, &change, length);
    if (flags)
        *flags = MSG_NOTIFICATION | MSG_EOR;
    return (int)length;
}

/* With the `in` lock held. */
static int receive(int fd, struct association *a, void *buffer, size_t size, struct sctp_sndrcvinfo *info, int *flags)
{
    enum kind kind = DATA;
    int found, how = flags ? *flags & MSG_DONTWAIT : 0;
    size_t length;

    if (flags)
        *flags = 0;
    if (a->state == DOWN)
        return 0;
    found = next_message(fd, a, size, &kind, how);
    if (found == 1 && kind == HELLO) {
        a->state = UP;
        forget_message(a);
        if (a->tells)
            return notify(a, buffer, size, flags, SCTP_COMM_UP);
        found = next_message(fd, a, size, &kind, how);
    }
    if (found < 0)
        return -1;
    if (found == 0) {
        /* Lost also where it never was up: programs give a socket up on SCTP_COMM_LOST, not on SCTP_CANT_STR_ASSOC. */
        a->state = DOWN;
        forget_message(a);
        shutdown(fd, SHUT_RDWR);
        return a->tells ? notify(a, buffer, size, flags, SCTP_COMM_LOST) : 0;
    }
    if (info) {
        uint16_t stream;
        memset(info, 0, sizeof *info);
        memcpy(&info->sinfo_ppid, a->header + 8, 4);
        memcpy(&stream, a->header + 12, 2);
        info->sinfo_stream = ntohs(stream);
        info->sinfo_assoc_id = a->id;
    }
    length = a->length - a->given;
    if (length > size)
        length = size;
    if (length)
        memcpy(buffer, a->data + a->given, length);
    a->given += length;
    if (flags)
        *flags = a->given == a->length ? MSG_EOR : 0;
    if (a->given == a->length)
        forget_message(a);
    return (int)length;
}

PUBLIC int sctp_recvmsg(int fd, void *buffer, size_t size, struct sockaddr *from, socklen_t *from_length,
                        struct sctp_sndrcvinfo *info, int *flags)
{
    struct association *a = find(fd);
    int found, kept;

    if (!a) {
        errno = EBADF;
        return -1;
    }
    try_to_greet(fd, a);
    pthread_mutex_lock(&a->in);
    if (__atomic_load_n(&a->open, __ATOMIC_ACQUIRE)) {
        found = receive(fd, a, buffer, size, info, flags);
        kept = errno;
        if (found >= 0)
            give_address(a, from, from_length);
    } else {
        found = -1;
        kept = EBADF; /* closed while we waited: the number may be another's by now */
    }
    pthread_mutex_unlock(&a->in);
    errno = kept;
    return found;
}
