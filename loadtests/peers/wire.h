// What the mock engine and the load client share: the clock, the file limit, and a few looks into HTTP.
#ifndef WIRE_H
#define WIRE_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <time.h>

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static inline void raise_file_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

// A head's length with its empty line, or 0 if it is not complete. Its Content-Length: -1 for none.
static inline size_t read_head(char* data, size_t size, long* content_length) {
    char* end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    *content_length = -1;
    for (char* line = data; line < end;) {
        char* line_end = memmem(line, end + 2 - line, "\r\n", 2);
        if (!strncasecmp(line, "content-length:", 15)) *content_length = strtol(line + 15, NULL, 10);
        line = line_end + 2;
    }
    return end - data + 4;
}
#endif
