/* The system's own struct tcp_info has more than the C library's, and the two do not go together.
 */
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include "rt/fdx.h"

int fd_tcp_bytes(int fd, uint64_t *in, uint64_t *out)
{
    struct tcp_info info = {0};
    socklen_t n = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) < 0)
        return -1;
    if (n < offsetof(struct tcp_info, tcpi_bytes_retrans) + sizeof(info.tcpi_bytes_retrans))
        return -1;
    *in = info.tcpi_bytes_received;
    *out = info.tcpi_bytes_sent - info.tcpi_bytes_retrans;
    return 0;
}
