/* A double of a profiler's library, as NVTX (version 3) loads it: it puts functions of its own into the tables that the program gives it, and
 * writes a line for each range that begins (thread, depth, name) and for each that ends to the file INJECTION_LOG. */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef void (*function)(void);

struct callbacks {
    size_t size;
    int (*module_table)(unsigned module, function ***table, unsigned *size);
};

struct version_info {
    size_t size;
    uint32_t version;
    uint32_t reserved;
    void (*set_version)(uint32_t version);
};

static FILE *log_file;
static __thread int depth;

static int push(const char *name)
{
    fprintf(log_file, "%d %d push %s\n", (int)gettid(), depth, name);
    return depth++;
}

static int pop(void)
{
    depth--;
    fprintf(log_file, "%d %d pop\n", (int)gettid(), depth);
    return depth;
}

__attribute__((destructor)) static void end(void)
{
    if (log_file)
        fclose(log_file);
}

int InitializeInjectionNvtx2(const void *(*export_table)(uint32_t id))
{
    /* Functions of each module, and one: what nvtxTypes.h of NVTX 3 numbers. */
    static const unsigned sizes[] = {0, 16, 9, 15, 7, 16, 7};
    const struct version_info *info = export_table(3);
    const struct callbacks *callbacks = export_table(1);
    if (!info || info->size < sizeof *info || info->version != 3 || !callbacks || callbacks->size < sizeof *callbacks || export_table(2))
        return 0;
    info->set_version(3);
    for (unsigned module = 1; module < 7; module++) {
        function **table = NULL;
        unsigned size = 0;
        if (!callbacks->module_table(module, &table, &size) || size != sizes[module] || table[0] || table[size])
            return 0;
        for (unsigned i = 1; i < size; i++) /* every place is there, and nothing is in it yet */
            if (!table[i] || *table[i])
                return 0;
        if (module == 1) {
            *table[9] = (function)push;
            *table[11] = (function)pop;
        }
    }
    if (callbacks->module_table(0, NULL, NULL) || callbacks->module_table(7, NULL, NULL))
        return 0;
    log_file = fopen(getenv("INJECTION_LOG"), "w");
    return log_file != NULL;
}
