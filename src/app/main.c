#include <stdio.h>

int main(void)
{
    puts("tailrace");
    return 0;
}
