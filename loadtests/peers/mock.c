// An engine that costs next to nothing, for measuring what stands in front of it: one thread, epoll.
//
//   mock PORT
//
// POST /v1/...: one JSON answer of 1 kB, or with "stream": true "max_tokens" events, one every "seed" milliseconds, each
// a chunk and a send() of its own, with the nanoseconds of its making in its text. From HOLD_MS on, one event and no
// more: an idle stream. Request bodies must have a Content-Length.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire.h"

enum { ROOM = 65536, WHEEL = 4096, EVENTS = 512, HOLD_MS = 60000 };

typedef struct Connection {
    int fd;
    char* in;  // what has come of a request
    size_t size, capacity;
    char* out;  // what the socket did not take
    size_t out_size, out_sent;
    int events_left, gap_ms;
    uint64_t due_ms;
    struct Connection* next;  // in the wheel
    int is_in_wheel, is_dead;
} Connection;

static int poller;
static Connection* wheel[WHEEL];
static char answer[4096];
static size_t answer_size;

static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
    "content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
static const char EVENT[] =
    "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"
    "\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" t%llu,%d \"},\"logprobs\":null,"
    "\"finish_reason\":null}]}\n\n";
static const char LAST_EVENT[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
static const char MODELS[] =
    "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1790000000,\"owned_by\":\"vllm\","
    "\"root\":\"m\",\"parent\":null,\"max_model_len\":32768}]}";

static void make_answer(void) {
    char body[2048];
    int n = sprintf(body,
                    "{\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion\","
                    "\"created\":1790000000,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":"
                    "{\"role\":\"assistant\",\"content\":\"");
    while (n < 850) n += sprintf(body + n, "lorem ipsum dolor ");
    n += sprintf(body + n,
                 "\",\"tool_calls\":[],\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\","
                 "\"stop_reason\":null}],\"usage\":{\"prompt_tokens\":200,\"total_tokens\":300,"
                 "\"completion_tokens\":100}}");
    answer_size = sprintf(answer,
                          "HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
                          "content-length: %d\r\ncontent-type: application/json\r\n\r\n%s",
                          n, body);
}

static void watch(Connection* c, int operation, uint32_t more) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | more, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &event);
}

static void say(Connection* c, const char* data, size_t size) {
    ssize_t sent = 0;
    if (!c->out_size) {
        sent = send(c->fd, data, size, MSG_NOSIGNAL);
        if (sent < 0) sent = 0;  // full, or broken: the latter is seen when it is read
        if ((size_t)sent == size) return;
        watch(c, EPOLL_CTL_MOD, EPOLLOUT);
    }
    c->out = realloc(c->out, c->out_size + size - sent);
    memcpy(c->out + c->out_size, data + sent, size - sent);
    c->out_size += size - sent;
}

static void say_rest(Connection* c) {
    while (c->out_sent < c->out_size) {
        ssize_t sent = send(c->fd, c->out + c->out_sent, c->out_size - c->out_sent, MSG_NOSIGNAL);
        if (sent < 0) return;
        c->out_sent += sent;
    }
    c->out_size = c->out_sent = 0;
    watch(c, EPOLL_CTL_MOD, 0);
}

static void say_event(Connection* c) {
    char event[512], chunk[600];
    if (!c->events_left) {
        c->gap_ms = 0;
        say(c, LAST_EVENT, sizeof LAST_EVENT - 1);
        return;
    }
    int size = sprintf(event, EVENT, (unsigned long long)now_ns(), c->events_left--);
    int n = sprintf(chunk, "%x\r\n%s\r\n", size, event);
    say(c, chunk, n);
}

static void wait_for_turn(Connection* c) {
    Connection** slot = &wheel[c->due_ms % WHEEL];
    c->next = *slot;
    *slot = c;
    c->is_in_wheel = 1;
}

static long number_of(const char* body, size_t size, const char* key, long usual) {
    const char* at = memmem(body, size, key, strlen(key));
    return at ? strtol(at + strlen(key), NULL, 10) : usual;
}

static int streams(const char* body, size_t size) {  // proxies may write the JSON anew, without the blank
    return size < ROOM && (memmem(body, size, "\"stream\": true", 14) || memmem(body, size, "\"stream\":true", 13));
}

static void answer_post(Connection* c, const char* body, size_t size) {
    if (!streams(body, size)) {
        say(c, answer, answer_size);
        return;
    }
    c->events_left = number_of(body, size, "\"max_tokens\":", 100);
    c->gap_ms = number_of(body, size, "\"seed\":", 10);
    say(c, STREAM_HEAD, sizeof STREAM_HEAD - 1);
    say_event(c);
    if (c->gap_ms < HOLD_MS) {
        c->due_ms = now_ns() / 1000000 + c->gap_ms;
        wait_for_turn(c);
    }
}

static void answer_get(Connection* c) {
    const char* body = strncmp(c->in, "GET /v1/models", 14) ? "{}" : MODELS;
    char data[1024];
    int n = sprintf(data, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                    strlen(body), body);
    say(c, data, n);
}

static void drop(Connection* c) {
    close(c->fd);
    free(c->in);
    free(c->out);
    c->is_dead = 1;
    if (!c->is_in_wheel) free(c);
}

static int receive(Connection* c) {  // 0: the connection is gone
    for (;;) {
        if (c->capacity - c->size < ROOM) {
            c->capacity = c->capacity ? 2 * c->capacity : 2 * ROOM;
            c->in = realloc(c->in, c->capacity + 1);
        }
        size_t room = c->capacity - c->size;
        ssize_t n = recv(c->fd, c->in + c->size, room, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN)) return 0;
        if (n > 0) c->size += n;
        if (n < (ssize_t)room) return 1;
    }
}

static void on_readable(Connection* c) {
    if (!receive(c)) {
        drop(c);
        return;
    }
    while (c->size) {
        long length;
        c->in[c->size] = 0;
        size_t head = read_head(c->in, c->size, &length);
        size_t whole = head + (length > 0 ? length : 0);
        if (!head || c->size < whole) return;
        if (!strncmp(c->in, "POST /v1/", 9))
            answer_post(c, c->in + head, whole - head);
        else
            answer_get(c);
        memmove(c->in, c->in + whole, c->size - whole);
        c->size -= whole;
    }
    if (c->gap_ms >= HOLD_MS) {  // thousands of these are open at once
        free(c->in);
        c->in = NULL;
        c->capacity = 0;
    }
}

static void turn_wheel(uint64_t tick) {
    Connection* c = wheel[tick % WHEEL];
    wheel[tick % WHEEL] = NULL;
    while (c) {
        Connection* next = c->next;
        c->is_in_wheel = 0;
        if (c->is_dead) {
            free(c);
        } else if (c->due_ms > tick) {
            wait_for_turn(c);
        } else {
            say_event(c);
            if (c->gap_ms) {
                c->due_ms += c->gap_ms;
                if (c->due_ms <= tick) c->due_ms = tick + 1;
                wait_for_turn(c);
            }
        }
        c = next;
    }
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Connection* c = calloc(1, sizeof *c);
        c->fd = fd;
        watch(c, EPOLL_CTL_ADD, 0);
    }
}

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    make_answer();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void*)&address, sizeof address) || listen(listener, 8192)) {
        perror("mock");
        return 1;
    }
    poller = epoll_create1(0);
    struct epoll_event all[EVENTS], arrival = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &arrival);
    for (uint64_t tick = now_ns() / 1000000;;) {
        int n = epoll_wait(poller, all, EVENTS, 1);
        for (int i = 0; i < n; i++) {
            Connection* c = all[i].data.ptr;
            if (!c) {
                accept_all(listener);
                continue;
            }
            if (all[i].events & EPOLLOUT) say_rest(c);
            if (all[i].events & ~EPOLLOUT) on_readable(c);
        }
        for (uint64_t now = now_ns() / 1000000; tick < now;) turn_wheel(++tick);
    }
}
