/* Loaded before libc (LD_PRELOAD) into a process under test: below one folder, what changes files succeeds a number of times and fails, or hangs, a
   number of times or from then on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* As tests/support/preload.ts writes it. */
struct control {
  /* 0: nothing fails. */
  _Atomic int64_t armed;
  /* Operations that still succeed. */
  _Atomic int64_t remaining;
  /* What the others fail with; 0: they hang until this changes, or nothing fails any more. EROFS keeps files from being removed too. */
  _Atomic int64_t error;
  /* How many of the others do not succeed, before everything works again. */
  _Atomic int64_t failing;
};

static struct control *control;
static char root[PATH_MAX];
static size_t root_length;
static int journal = -1;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void start(void) {
  const char *folder = getenv("TEST_DISK_ROOT");
  const char *control_path = getenv("TEST_DISK_CONTROL");
  const char *journal_path = getenv("TEST_DISK_JOURNAL");
  if (folder == NULL || control_path == NULL) return;
  snprintf(root, sizeof root, "%s", folder);
  root_length = strlen(root);
  int file = REAL(open)(control_path, O_RDWR | O_CLOEXEC);
  if (file < 0) abort();
  void *memory = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) abort();
  if (journal_path != NULL) journal = REAL(open)(journal_path, O_WRONLY | O_APPEND | O_CLOEXEC);
  control = memory;
}

/* Whether the operation is to fail; sets errno. Every operation that counts is written to the journal as a line. */
static int fails(const char *operation, int removes, const char *path) {
  if (control == NULL || path == NULL || strncmp(path, root, root_length) != 0) return 0;
  int error = (int)atomic_load(&control->error);
  if (removes && error != EROFS) return 0;
  if (journal >= 0) {
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %s\n", operation, path + root_length);
    if (REAL(write)(journal, line, (size_t)length) != length) abort();
  }
  if (atomic_load(&control->armed) == 0) return 0;
  int64_t remaining = atomic_fetch_sub(&control->remaining, 1);
  if (remaining > 0 || -remaining >= atomic_load(&control->failing)) return 0;
  while (error == 0 && atomic_load(&control->armed) != 0) {
    usleep(1000);
    error = (int)atomic_load(&control->error);
  }
  if (error == 0 || atomic_load(&control->armed) == 0) return 0;
  errno = error;
  return 1;
}

static int fails_on(const char *operation, int descriptor) {
  char link[64];
  char path[PATH_MAX];
  if (control == NULL) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = '\0';
  return fails(operation, 0, path);
}

#define OPEN(name)                                                                                                      \
  int name(const char *path, int flags, ...) {                                                                          \
    va_list arguments;                                                                                                  \
    va_start(arguments, flags);                                                                                         \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;                                 \
    va_end(arguments);                                                                                                  \
    if ((flags & (O_CREAT | O_TRUNC)) != 0 && fails("open", 0, path)) return -1;                                        \
    return REAL(name)(path, flags, mode);                                                                               \
  }
OPEN(open)
OPEN(open64)

#define ON_DESCRIPTOR(operation, type, name, parameters, ...)                                                           \
  type name parameters {                                                                                                \
    if (fails_on(operation, descriptor)) return -1;                                                                     \
    return REAL(name)(__VA_ARGS__);                                                                                     \
  }
ON_DESCRIPTOR("write", ssize_t, write, (int descriptor, const void *bytes, size_t size), descriptor, bytes, size)
ON_DESCRIPTOR("write", ssize_t, pwrite, (int descriptor, const void *bytes, size_t size, off_t at), descriptor, bytes, size, at)
ON_DESCRIPTOR("write", ssize_t, pwrite64, (int descriptor, const void *bytes, size_t size, off64_t at), descriptor, bytes, size, at)
ON_DESCRIPTOR("write", ssize_t, writev, (int descriptor, const struct iovec *parts, int count), descriptor, parts, count)
ON_DESCRIPTOR("write", ssize_t, pwritev, (int descriptor, const struct iovec *parts, int count, off_t at), descriptor, parts, count, at)
ON_DESCRIPTOR("write", ssize_t, pwritev64, (int descriptor, const struct iovec *parts, int count, off64_t at), descriptor, parts, count, at)
ON_DESCRIPTOR("truncate", int, ftruncate, (int descriptor, off_t size), descriptor, size)
ON_DESCRIPTOR("truncate", int, ftruncate64, (int descriptor, off64_t size), descriptor, size)
ON_DESCRIPTOR("sync", int, fsync, (int descriptor), descriptor)
ON_DESCRIPTOR("sync", int, fdatasync, (int descriptor), descriptor)

#define ON_PATH(operation, removes, name, parameters, ...)                                                              \
  int name parameters {                                                                                                 \
    if (fails(operation, removes, path)) return -1;                                                                     \
    return REAL(name)(__VA_ARGS__);                                                                                     \
  }
ON_PATH("mkdir", 0, mkdir, (const char *path, mode_t mode), path, mode)
ON_PATH("rename", 0, rename, (const char *path, const char *to), path, to)
ON_PATH("unlink", 1, unlink, (const char *path), path)
ON_PATH("rmdir", 1, rmdir, (const char *path), path)
