/* A disk that takes its time: preloaded into a process, every fdatasync first waits for the time that the flush of a
   common SSD takes: 1 ms. Where a flush ends in the cache of a host, the gain of
   group commit would not show otherwise. */

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int fdatasync(int fd)
{
    const struct timespec flush = {0, 1000000};
    nanosleep(&flush, 0);
    return (int)syscall(SYS_fdatasync, fd);
}
