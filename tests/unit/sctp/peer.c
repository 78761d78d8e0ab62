/* A program that speaks SCTP by libsctp's interface, for the tests: one line of words on standard output an event. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/sctp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char buffer[1 << 20];

/* What comes next; `peer` is whom it has to come from. */
static int event(int fd, size_t size, const struct sockaddr_in *peer)
{
    struct sctp_sndrcvinfo info;
    struct sockaddr_in from = {0};
    socklen_t room = sizeof from;
    int flags = 0, got = sctp_recvmsg(fd, buffer, size, (struct sockaddr *)&from, &room, &info, &flags);

    if (got > 0 && (from.sin_port != peer->sin_port || from.sin_addr.s_addr != peer->sin_addr.s_addr))
        printf("from nobody ");

    if (got < 0) {
        printf("%s\n", errno == EAGAIN ? "again" : strerror(errno));
    } else if (flags & MSG_NOTIFICATION) {
        struct sctp_assoc_change *change = (void *)buffer;
        struct sctp_status status;
        socklen_t length = sizeof status;
        getsockopt(fd, IPPROTO_SCTP, SCTP_STATUS, &status, &length);
        printf("%s %d\n", change->sac_state == SCTP_COMM_UP ? "up" : change->sac_state == SCTP_COMM_LOST ? "lost" : "no",
               status.sstat_outstrms);
    } else if (got == 0) {
        printf("end\n");
    } else {
        unsigned sum = 0;
        for (int i = 0; i < got; i++)
            sum = sum * 31 + (unsigned char)buffer[i];
        printf("data %d %u ppid %u stream %u%s\n", got, sum, ntohl(info.sinfo_ppid), info.sinfo_stream,
               flags & MSG_EOR ? "" : " part");
    }
    fflush(stdout);
    return got;
}

/*
 * server PORT SIZE SUBSCRIBED: accepts associations and tells what comes, by poll, without blocking, into a buffer of
 * SIZE; answers with the length.
 */
static int serve(int port, size_t size, int subscribed)
{
    struct sockaddr_in peer[8];
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP);
    struct sctp_event_subscribe events = {.sctp_data_io_event = 1, .sctp_association_event = subscribed};
    struct pollfd polled[8] = {{.fd = fd, .events = POLLIN}};
    int count = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (setsockopt(fd, IPPROTO_SCTP, SCTP_EVENTS, &events, sizeof events) ||
        sctp_bindx(fd, (struct sockaddr *)&own, 1, SCTP_BINDX_ADD_ADDR) || listen(fd, 5))
        return perror("server"), 1;
    printf("listening\n");
    fflush(stdout);
    while (poll(polled, count, 20000) > 0) {
        if (polled[0].revents && count < 8) {
            socklen_t room = sizeof peer[0];
            int made = accept(fd, (struct sockaddr *)&peer[count], &room);
            fcntl(made, F_SETFL, O_NONBLOCK);
            polled[count++] = (struct pollfd){.fd = made, .events = POLLIN};
        }
        for (int i = 1; i < count; i++) {
            if (!polled[i].revents)
                continue;
            printf("%d ", i);
            int got = event(polled[i].fd, size, &peer[i]);
            if (got == 0 || (got > 0 && ((struct sctp_assoc_change *)buffer)->sac_type == SCTP_ASSOC_CHANGE &&
                             ((struct sctp_assoc_change *)buffer)->sac_state != SCTP_COMM_UP)) {
                close(polled[i].fd);
                polled[i].fd = -1;
            } else if (got > 0 && ((struct sctp_assoc_change *)buffer)->sac_type != SCTP_ASSOC_CHANGE) {
                uint32_t length = htonl(got);
                sctp_sendmsg(polled[i].fd, &length, 4, NULL, 0, htonl(60), 0, 3, 0, 0);
            }
        }
    }
    return 0;
}

/* client PORT LENGTH...: sends a message of each length, and tells what comes back. */
static int ask(int port, int lengths, char **length)
{
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sctp_event_subscribe events = {.sctp_data_io_event = 1, .sctp_association_event = 1};
    int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP);

    setsockopt(fd, IPPROTO_SCTP, SCTP_EVENTS, &events, sizeof events);
    if (sctp_connectx(fd, (struct sockaddr *)&peer, 1, NULL))
        return perror("client"), 1;
    event(fd, sizeof buffer, &peer);
    for (int i = 0; i < lengths; i++) {
        int size = atoi(length[i]);
        memset(buffer, 'a' + i % 26, size);
        if (sctp_sendmsg(fd, buffer, size, NULL, 0, htonl(60), 0, i % 10, 0, 0) != size)
            return perror("send"), 1;
        event(fd, 2, &peer);
        event(fd, sizeof buffer, &peer);
    }
    close(fd);
    return 0;
}

enum { LONG = 900000 };

static void *send_long(void *fd)
{
    static char text[LONG];
    return sctp_sendmsg(*(int *)fd, text, LONG, NULL, 0, 0, 0, 0, 0, 0) == LONG ? fd : NULL;
}

static void *receive_long(void *fd)
{
    int flags = 0;
    char *room = malloc(LONG);
    int got = sctp_recvmsg(*(int *)fd, room, LONG, NULL, NULL, NULL, &flags);
    free(room);
    return got == LONG && flags == MSG_EOR ? fd : NULL;
}

/* both: two ends that write to each other more than the kernel holds, and only then start to read. */
static int both(void)
{
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof own;
    int small = 8192, end[2], listener = socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP);
    pthread_t writer[2], reader[2];
    void *done[4];

    end[0] = socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP);
    setsockopt(listener, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    setsockopt(end[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    setsockopt(end[0], SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    if (bind(listener, (struct sockaddr *)&own, sizeof own) || listen(listener, 1) ||
        getsockname(listener, (struct sockaddr *)&own, &length) || connect(end[0], (struct sockaddr *)&own, length))
        return perror("both"), 1;
    end[1] = accept(listener, NULL, NULL);
    for (int i = 0; i < 2; i++)
        pthread_create(&writer[i], NULL, send_long, &end[i]);
    for (int i = 0; i < 2; i++) {
        struct pollfd full = {.fd = end[i], .events = POLLOUT};
        while (poll(&full, 1, 0) > 0)
            sched_yield();
    }
    for (int i = 0; i < 2; i++)
        pthread_create(&reader[i], NULL, receive_long, &end[i]);
    for (int i = 0; i < 2; i++) {
        pthread_join(writer[i], &done[2 * i]);
        pthread_join(reader[i], &done[2 * i + 1]);
    }
    printf("%s\n", done[0] && done[1] && done[2] && done[3] ? "all there" : "lost");
    return 0;
}

int main(int count, char **word)
{
    if (!strcmp(word[1], "both"))
        return both();
    if (!strcmp(word[1], "server"))
        return serve(atoi(word[2]), atoi(word[3]), atoi(word[4]));
    return ask(atoi(word[2]), count - 3, word + 3);
}
