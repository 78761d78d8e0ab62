/* A program that speaks SCTP by libsctp's interface, for the tests: one line of words on standard output an event. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/sctp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char buffer[1 << 20];

static int event(int fd, size_t size)
{
    struct sctp_sndrcvinfo info;
    int flags = 0, got = sctp_recvmsg(fd, buffer, size, NULL, NULL, &info, &flags);

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

/* server PORT: accepts two associations and tells what comes, by poll, without blocking; then echoes lengths. */
static int serve(int port)
{
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP);
    struct sctp_event_subscribe events = {.sctp_data_io_event = 1, .sctp_association_event = 1};
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
            int made = accept(fd, NULL, NULL);
            fcntl(made, F_SETFL, O_NONBLOCK);
            polled[count++] = (struct pollfd){.fd = made, .events = POLLIN};
        }
        for (int i = 1; i < count; i++) {
            if (!polled[i].revents)
                continue;
            printf("%d ", i);
            int got = event(polled[i].fd, sizeof buffer);
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
    int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP);

    if (sctp_connectx(fd, (struct sockaddr *)&peer, 1, NULL))
        return perror("client"), 1;
    event(fd, sizeof buffer);
    for (int i = 0; i < lengths; i++) {
        int size = atoi(length[i]);
        memset(buffer, 'a' + i % 26, size);
        if (sctp_sendmsg(fd, buffer, size, NULL, 0, htonl(60), 0, i % 10, 0, 0) != size)
            return perror("send"), 1;
        event(fd, 2);
        event(fd, sizeof buffer);
    }
    close(fd);
    return 0;
}

int main(int count, char **word)
{
    return !strcmp(word[1], "server") ? serve(atoi(word[2])) : ask(atoi(word[2]), count - 3, word + 3);
}
