// A load client that costs little: one thread, epoll, closed loop. Prints one line of JSON.
//
//   load PORT MODE CONNECTIONS SECONDS BODYFILE RAMP_MS WARM_S PID...
//
// MODE n: answers with a Content-Length, one after another on each connection. s: streams of mock's events, one after
// another. h: one stream a connection, held open; after the line is printed they stay open until stdin ends.
// The CPU time of the processes PID... with all their threads is taken over the same seconds as all else.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire.h"

enum { ROOM = 65536, HELD_ROOM = 4096, EVENTS = 512, TAIL = 600 };

typedef struct {
    int fd;
    size_t sent;  // of the request
    char* in;
    size_t size;
    size_t head;  // the answer's, 0: not here yet
    long left;    // of an answer with a Content-Length; -1: it is chunked
    uint64_t begun, start_at;
    int has_event, is_full;
} Connection;

typedef struct {
    float* values;
    size_t count, capacity;
} Sample;

static int port, poller;
static char mode;
static char* request;
static size_t request_size, room;
static int is_measuring;
static uint64_t done, chunks, errors, not_200;
static Sample latencies, first_tokens, delays;  // in µs

static void add(Sample* s, float value) {
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 1 << 16;
        s->values = realloc(s->values, s->capacity * sizeof *s->values);
    }
    s->values[s->count++] = value;
}

static int compare(const void* a, const void* b) {
    float x = *(const float*)a, y = *(const float*)b;
    return x < y ? -1 : x > y;
}

static double percentile(Sample* s, double p) {
    if (!s->count) return -1;
    qsort(s->values, s->count, sizeof *s->values, compare);
    return s->values[(size_t)(p * (s->count - 1))];
}

static double cpu_seconds(int count, char** pids) {
    double sum = 0;
    for (int i = 0; i < count; i++) {
        char path[600];
        snprintf(path, sizeof path, "/proc/%s/task", pids[i]);
        DIR* tasks = opendir(path);
        if (!tasks) continue;
        for (struct dirent* task; (task = readdir(tasks));) {
            snprintf(path, sizeof path, "/proc/%s/task/%s/schedstat", pids[i], task->d_name);
            FILE* file = task->d_name[0] == '.' ? NULL : fopen(path, "r");
            unsigned long long ns;
            if (!file) continue;
            if (fscanf(file, "%llu", &ns) == 1) sum += ns / 1e9;
            fclose(file);
        }
        closedir(tasks);
    }
    return sum;
}

static void watch(Connection* c, int operation, uint32_t more) {
    struct epoll_event event = {.events = EPOLLIN | more, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &event);
}

static void send_request(Connection* c) {
    while (c->sent < request_size) {
        ssize_t n = send(c->fd, request + c->sent, request_size - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EAGAIN && !c->is_full) {
                c->is_full = 1;
                watch(c, EPOLL_CTL_MOD, EPOLLOUT);
            }
            return;
        }
        c->sent += n;
    }
    if (c->is_full) {
        c->is_full = 0;
        watch(c, EPOLL_CTL_MOD, 0);
    }
}

static void begin(Connection* c) {
    c->begun = now_ns();
    c->sent = c->size = c->head = 0;
    c->has_event = 0;
    send_request(c);
}

static void open_connection(Connection* c) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (void*)&address, sizeof address)) {
        perror("load: connect");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->is_full = 0;
    watch(c, EPOLL_CTL_ADD, 0);
    begin(c);
}

static void finish(Connection* c) {
    if (is_measuring) {
        add(&latencies, (now_ns() - c->begun) / 1e3);
        done++;
    }
    begin(c);
}

static void read_events(Connection* c, uint64_t now) {
    char *at = c->in, *end = c->in + c->size, *last = at;
    while ((at = memmem(at, end - at, "\"content\":\" t", 13))) {
        at += 13;
        if (end - at < 20) break;  // its number may not be complete
        uint64_t made = strtoull(at, NULL, 10);
        if (!c->has_event && is_measuring) add(&first_tokens, (now - c->begun) / 1e3);
        c->has_event = 1;
        if (is_measuring) {
            chunks++;
            add(&delays, ((double)now - (double)made) / 1e3);
        }
        last = at;
    }
    if (c->size >= 5 && !memcmp(end - 5, "0\r\n\r\n", 5)) {
        finish(c);
        return;
    }
    size_t keep = end - last > TAIL ? TAIL : end - last;
    memmove(c->in, end - keep, keep);
    c->size = keep;
}

static void on_readable(Connection* c) {
    ssize_t n = recv(c->fd, c->in + c->size, room - c->size, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        errors += is_measuring;
        close(c->fd);
        open_connection(c);
        return;
    }
    uint64_t now = now_ns();
    c->size += n;
    if (!c->head) {
        c->head = read_head(c->in, c->size, &c->left);
        if (!c->head) return;
        if (strncmp(c->in + 9, "200", 3)) not_200 += is_measuring;
        n = c->size - c->head;
        memmove(c->in, c->in + c->head, n);
        c->size = n;
    }
    if (c->left >= 0) {
        c->left -= n;
        c->size = 0;
        if (c->left <= 0) finish(c);
    } else if (n) {
        read_events(c, now);
    }
}

static void report(double seconds, double cpu, Connection* all, int count) {
    long open = 0;
    for (int i = 0; i < count; i++) open += all[i].has_event;
    printf(
        "{\"seconds\": %.3f, \"requests\": %llu, \"chunks\": %llu, \"errors\": %llu, \"not_200\": %llu, \"cpu_s\": %.4f, "
        "\"latency_p50\": %.0f, \"latency_p99\": %.0f, \"ttft_p50\": %.0f, \"ttft_p99\": %.0f, "
        "\"delay_p50\": %.0f, \"delay_p99\": %.0f, \"open\": %ld}\n",
        seconds, (unsigned long long)done, (unsigned long long)chunks, (unsigned long long)errors,
        (unsigned long long)not_200, cpu, percentile(&latencies, .5), percentile(&latencies, .99),
        percentile(&first_tokens, .5), percentile(&first_tokens, .99), percentile(&delays, .5),
        percentile(&delays, .99), open);
    fflush(stdout);
}

static void read_body(const char* path) {
    FILE* file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(1);
    }
    fseek(file, 0, SEEK_END);
    size_t size = ftell(file);
    rewind(file);
    request = malloc(size + 600);
    int head = sprintf(request,
                       "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: OpenAI/Python 2.1.0\r\n"
                       "Accept: application/json\r\nAuthorization: Bearer sk-test-key\r\n"
                       "X-Request-Id: 0123456789abcdef\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                       port, size);
    if (fread(request + head, 1, size, file) != size) exit(1);
    request_size = head + size;
}

int main(int argc, char** argv) {
    if (argc < 8) return 2;
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    port = atoi(argv[1]);
    mode = argv[2][0];
    int count = atoi(argv[3]), opened = 0;
    read_body(argv[5]);
    uint64_t ramp = atoi(argv[6]) * 1000000ULL;
    char** pids = argv + 8;
    int pid_count = argc - 8;
    room = mode == 'h' ? HELD_ROOM : ROOM;
    poller = epoll_create1(0);
    Connection* all = calloc(count, sizeof *all);
    uint64_t started = now_ns(), from = started + ramp + (uint64_t)(atof(argv[7]) * 1e9), until = 0;
    for (int i = 0; i < count; i++) {
        all[i].in = malloc(room);
        all[i].start_at = started + ramp * i / count;
    }
    struct epoll_event events[EVENTS];
    double cpu = 0;
    for (;;) {
        uint64_t now = now_ns();
        while (opened < count && all[opened].start_at <= now) open_connection(&all[opened++]);
        if (!is_measuring && now >= from) {
            cpu = cpu_seconds(pid_count, pids);
            is_measuring = 1;
            from = now_ns();
            until = from + (uint64_t)(atof(argv[4]) * 1e9);
        } else if (is_measuring && now >= until) {
            report((now_ns() - from) / 1e9, cpu_seconds(pid_count, pids) - cpu, all, count);
            if (mode == 'h') getchar();
            return 0;
        }
        int n = epoll_wait(poller, events, EVENTS, opened < count ? 1 : 20);
        for (int i = 0; i < n; i++) {
            Connection* c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) send_request(c);
            if (events[i].events & ~EPOLLOUT) on_readable(c);
        }
    }
}
