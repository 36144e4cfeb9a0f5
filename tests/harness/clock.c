/* Sets the wall clock of one process: CLOCK_REALTIME is moved by the seconds that the file named by CLOCK_MOVED_BY holds,
   which may change at any time. To be preloaded (ld.so(8), LD_PRELOAD). Clocks that nobody can set stay as they are. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    const char *path = clock == CLOCK_REALTIME ? getenv("CLOCK_MOVED_BY") : NULL;
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (result == 0 && file >= 0) {
        char text[32] = {0};
        if (read(file, text, sizeof text - 1) > 0) time->tv_sec += atol(text);
    }
    if (file >= 0) close(file);
    return result;
}
