/* Makes writes to one directory fail, for a process that has this preloaded.
 *
 * FAULT_DIR: the directory. FAULT_CONTROL: a file; while it exists, it holds the number of the error that
 * write, pwrite, fsync, fdatasync, ftruncate and opening for writing end in. Reading goes on.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int wanted(void) {
    char text[16] = {0};
    const char *control = getenv("FAULT_CONTROL");
    if (control == NULL) return 0;
    long fd = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    long got = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    return got > 0 ? atoi(text) : 0;
}

static int within(const char *path) {
    const char *directory = getenv("FAULT_DIR");
    return directory != NULL && strncmp(path, directory, strlen(directory)) == 0;
}

static int fails(int fd) {
    char link[32], path[PATH_MAX];
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    int number = 0;
    if (length > 0) {
        path[length] = 0;
        number = within(path) ? wanted() : 0;
    }
    errno = number ? number : kept;
    return number != 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t size) { return fails(fd) ? -1 : REAL(write)(fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return fails(fd) ? -1 : REAL(pwrite)(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return fails(fd) ? -1 : REAL(pwrite64)(fd, data, size, at);
}
int fsync(int fd) { return fails(fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails(fd) ? -1 : REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t size) { return fails(fd) ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return fails(fd) ? -1 : REAL(ftruncate64)(fd, size); }

static int refused(const char *path, int flags) {
    int number = (flags & O_ACCMODE) != O_RDONLY && within(path) ? wanted() : 0;
    if (number) errno = number;
    return number != 0;
}

#define OPENS(name)                                                       \
    int name(const char *path, int flags, ...) {                          \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                     \
        return refused(path, flags) ? -1 : REAL(name)(path, flags, mode); \
    }
OPENS(open)
OPENS(open64)
