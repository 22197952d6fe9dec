// The conversion of pipeline/flow/frames.py in one pass: one thread a target pixel, from the decoded surface
// straight into a slot of the batch tensor. Plain CUDA C++ without an include: NVRTC compiles it for a GPU,
// a C++ compiler (with tests/gpu/cuda_shim.h before it) for the CPU.

struct Plane {
    unsigned long long address;
    int height, width;  // values
    int pitch, step;    // values from row to row, and from a value to its neighbour
};

struct Conversion {  // CONVERSION of convert_cuda.py: the same fields in the same order
    Plane planes[3];
    unsigned long long out;
    int count;                             // planes that there are: 3, or 1 for grey
    int quarter_turns;                     // clockwise
    int resized_height, resized_width;     // before the turn
    int top, left;                         // of the crop, in the turned picture
    int height, width;                     // of the slot
    int channel_stride, row_stride, pixel_stride;
    float table[3][4];                     // from plane values and 1 to 0..255, in the model's channel order
    float mean[3], scale[3];
};

struct Half {
    unsigned short bits;
};

#ifdef __CUDACC__
static __device__ __forceinline__ Half half_of(float value) {
    Half half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half.bits) : "f"(value));
    return half;
}
#endif

static __device__ __forceinline__ void put(float *at, float value) { *at = value; }
static __device__ __forceinline__ void put(Half *at, float value) { *at = half_of(value); }

// The source pixels that one target pixel sees along one axis, and what they weigh: a tent over its centre.
// Positions are whole numbers, in parts of 1 / (2 * target) of a source pixel, so that weights are exact.
struct Span {
    int first, last;   // pixels of the source
    int centre, reach, unit;
    int before, after; // what pixels beyond the ends would weigh: it counts for the ends
    float whole;       // 1 / the sum of all weights

    __device__ __forceinline__ int weight(int pixel) const {
        int distance = centre - unit * pixel;
        return reach - (distance < 0 ? -distance : distance);
    }
};

static __device__ __forceinline__ int floor_of(int value, int by) { return (value < 0 ? value - by + 1 : value) / by; }

static __device__ __forceinline__ Span span_of(int index, int source, int target) {
    Span span;
    span.unit = 2 * target;
    span.centre = (2 * index + 1) * source - target;
    span.reach = 2 * (source > target ? source : target);
    int first = floor_of(span.centre - span.reach, span.unit) + 1;
    int last = floor_of(span.centre + span.reach - 1, span.unit), sum = 0;
    span.before = span.after = 0;
    for (int pixel = first; pixel <= last; ++pixel) {
        int weight = span.weight(pixel);
        sum += weight;
        if (pixel < 0) span.before += weight;
        if (pixel >= source) span.after += weight;
    }
    span.first = first < 0 ? 0 : first;
    span.last = last < source ? last : source - 1;
    span.whole = 1.0f / (float)sum;
    return span;
}

template <typename Value>
static __device__ __forceinline__ float along(const Value *row, int step, int end, const Span &span) {
    unsigned long long total = 0;
    for (int at = span.first; at <= span.last; ++at)
        total += (unsigned long long)(unsigned)span.weight(at) * row[at * step];
    if (span.before) total += (unsigned long long)(unsigned)span.before * row[0];
    if (span.after) total += (unsigned long long)(unsigned)span.after * row[end * step];
    return (float)total * span.whole;
}

template <typename Value>
static __device__ __forceinline__ float sample(const Plane &plane, const Span &rows, const Span &columns) {
    const Value *values = (const Value *)plane.address;
    float total = 0.0f;
    for (int row = rows.first; row <= rows.last; ++row) {
        int weight = rows.weight(row);
        if (row == 0) weight += rows.before;
        if (row == plane.height - 1) weight += rows.after;
        const Value *at = values + (long long)row * plane.pitch;
        total += (float)weight * along(at, plane.step, plane.width - 1, columns);
    }
    return total * rows.whole;
}

template <typename Value, typename Out>
static __device__ __forceinline__ void paint(const Conversion &to) {
    int x = (int)(blockIdx.x * blockDim.x + threadIdx.x), y = (int)(blockIdx.y * blockDim.y + threadIdx.y);
    if (x >= to.width || y >= to.height) return;
    int row = to.top + y, column = to.left + x;
    int source_y = row, source_x = column;
    if (to.quarter_turns == 1) {
        source_y = to.resized_height - 1 - column;
        source_x = row;
    } else if (to.quarter_turns == 2) {
        source_y = to.resized_height - 1 - row;
        source_x = to.resized_width - 1 - column;
    } else if (to.quarter_turns == 3) {
        source_y = column;
        source_x = to.resized_width - 1 - row;
    }
    Span rows = span_of(source_y, to.planes[0].height, to.resized_height);
    Span columns = span_of(source_x, to.planes[0].width, to.resized_width);
    float first = sample<Value>(to.planes[0], rows, columns);
    float second = 0.0f, third = 0.0f;  // of a grey picture: what they would add is in the table
    if (to.count == 3) {                // the last two planes are of one size
        rows = span_of(source_y, to.planes[1].height, to.resized_height);
        columns = span_of(source_x, to.planes[1].width, to.resized_width);
        second = sample<Value>(to.planes[1], rows, columns);
        third = sample<Value>(to.planes[2], rows, columns);
    }
    Out *out = (Out *)to.out + (long long)y * to.row_stride + (long long)x * to.pixel_stride;
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
        const float *table = to.table[channel];
        float value = table[0] * first + table[1] * second + table[2] * third + table[3];
        value = value < 0.0f ? 0.0f : value > 255.0f ? 255.0f : value;
        put(out + (long long)channel * to.channel_stride, (value - to.mean[channel]) * to.scale[channel]);
    }
}

#define KERNEL(name, Value, Out) \
    extern "C" __global__ void __launch_bounds__(256) name(const Conversion to) { paint<Value, Out>(to); }

KERNEL(convert_8_f32, unsigned char, float)
KERNEL(convert_8_f16, unsigned char, Half)
KERNEL(convert_16_f32, unsigned short, float)
KERNEL(convert_16_f16, unsigned short, Half)
