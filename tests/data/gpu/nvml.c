/* NVIDIA's management library made of software: what `curator.host` asks of it, and nothing else.

   The environment says what it answers: NVML_GPUS is a list of `name/major.minor` with `;` between,
   NVML_DRIVER the driver's version, NVML_FAULT a status that nvmlInit returns, and NVML_LOST the
   number of a GPU that fell off its bus. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOT_FOUND = 6, GPU_IS_LOST = 15, LIMIT = 16 };

static char texts[LIMIT][96];

static int number(const char *name, int otherwise) {
    const char *set = getenv(name);
    return set && *set ? atoi(set) : otherwise;
}
static int known(void) {
    const char *from = getenv("NVML_GPUS");
    int count = 0;
    while (from && *from && count < LIMIT) {
        size_t size = strcspn(from, ";");
        snprintf(texts[count++], sizeof texts[0], "%.*s", (int)size, from);
        from += size + (from[size] == ';');
    }
    return count;
}

int nvmlInitWithFlags(unsigned flags) { return flags ? 2 : number("NVML_FAULT", 0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int status) {
    return status == 9 ? "Driver Not Loaded" : status == 18 ? "Driver/library version mismatch" : "?";
}
int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    const char *set = getenv("NVML_DRIVER");
    return snprintf(text, size, "%s", set ? set : "580.95.05"), 0;
}
int nvmlDeviceGetCount_v2(unsigned *count) { return *count = (unsigned)known(), 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if ((int)index >= known()) return NOT_FOUND;
    if ((int)index == number("NVML_LOST", -1)) return GPU_IS_LOST;
    return *device = texts[index], 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned size) {
    const char *text = device;
    return snprintf(name, size, "%.*s", (int)strcspn(text, "/"), text), 0;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    const char *text = strchr(device, '/');
    return text && sscanf(text, "/%d.%d", major, minor) == 2 ? 0 : 3;
}
