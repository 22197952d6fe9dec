// A fake libnvcuvid.so.1: each packet is one picture. Its luma is filled with the sum of the packet's bytes, so
// that every picture can be traced to what was fed, and a buffer that was read too late shows another sum.
#include "fake.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// What the tests set before they decode.
EXPORT int fake_width = 64, fake_height = 48, fake_bits = 8;
EXPORT int fake_error_at = -1;       // the parser fails on this packet of each parser
EXPORT int fake_resize_at = -1;      // a new sequence, fake_new_width x fake_new_height, begins at this packet
EXPORT int fake_new_width = 32, fake_new_height = 32;
EXPORT int fake_reorder = 0;         // every second picture is shown after the one that follows it
EXPORT int fake_delay = 0;           // pictures that the parser holds back
EXPORT int fake_progressive = 1;     // 0: the sequence is interlaced
EXPORT int fake_unsupported = 0;     // the caps say no
EXPORT int fake_max_width = 4096;
EXPORT int fake_sleep_us = 0;        // how long a parse takes
EXPORT int fake_create_error = 0;    // what cuvidCreateDecoder returns
EXPORT long fake_live_decoders = 0, fake_live_parsers = 0, fake_live_maps = 0;

enum { SURFACES = 20, PACKET_END_OF_STREAM = 1 };

typedef struct {
    int codec;
    unsigned frame_rate[2];
    unsigned char progressive, luma_bits_minus_8, chroma_bits_minus_8, min_surfaces;
    unsigned coded_width, coded_height;
    struct { int left, top, right, bottom; } display;
    int chroma_format;
    unsigned bitrate;
    int aspect[2];
    unsigned char signal[4];
    unsigned header_size;
} VideoFormat;

typedef struct {
    int picture, progressive, top_first, repeat_first;
    long long timestamp;
} DisplayInfo;

typedef struct {
    unsigned char type, reserved[3];
    unsigned size;
} Message;

typedef struct {
    void *data;
    Message *messages;
    unsigned count, picture;
} MessageInfo;

typedef struct {
    int codec;
    unsigned max_surfaces, clock_rate, error_threshold, max_display_delay, reserved1[5];
    void *user;
    int (*sequence)(void *, VideoFormat *);
    int (*decode)(void *, void *);
    int (*display)(void *, DisplayInfo *);
    int (*operating_point)(void *, void *);
    int (*messages)(void *, MessageInfo *);
    void *reserved2[5];
    void *extra;
} ParserParameters;

typedef struct {
    unsigned long flags, size;
    const unsigned char *payload;
    long long timestamp;
} SourcePacket;

typedef struct {
    ParserParameters given;
    int width, height, begun, packets, pictures, since_start;
    DisplayInfo held[SURFACES];
    int waiting;
    long long timestamps[SURFACES];   // of the pictures held, in the order in which they were fed
} Parser;

typedef struct {
    unsigned char *mapped;   // one output surface, mapped again and again, as a real one may be
    size_t pitch, rows;
    int sums[SURFACES];
    int bits;
    DevicePointer surfaces;  // what a real one takes; nothing is written there
} Decoder;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread int sum_of_packet;   // parse and decode happen in one call stack

static void count(long *what, int by) {
    pthread_mutex_lock(&lock);
    *what += by;
    pthread_mutex_unlock(&lock);
}

// ---- the parser --------------------------------------------------------------------------------------------

EXPORT Result cuvidCreateVideoParser(Parser **made, ParserParameters *parameters) {
    Parser *parser = calloc(1, sizeof *parser);
    parser->given = *parameters;
    parser->width = fake_width;
    parser->height = fake_height;
    fake_log("create parser delay=%u", parameters->max_display_delay);
    count(&fake_live_parsers, 1);
    *made = parser;
    return SUCCESS;
}

EXPORT Result cuvidDestroyVideoParser(Parser *parser) {
    count(&fake_live_parsers, -1);
    free(parser);
    return SUCCESS;
}

static void show(Parser *parser, int keep) {
    while (parser->waiting > keep) {
        DisplayInfo first = parser->held[0];
        first.timestamp = parser->timestamps[0];  // as a real parser does: it is another picture's
        memmove(parser->held, parser->held + 1, sizeof first * (size_t)--parser->waiting);
        memmove(parser->timestamps, parser->timestamps + 1, sizeof first.timestamp * (size_t)parser->waiting);
        parser->given.display(parser->given.user, &first);
    }
}

static int begin_sequence(Parser *parser) {
    VideoFormat format = {.codec = parser->given.codec, .frame_rate = {25, 1}, .chroma_format = 1};
    format.progressive = (unsigned char)fake_progressive;
    format.luma_bits_minus_8 = format.chroma_bits_minus_8 = (unsigned char)(fake_bits - 8);
    format.min_surfaces = 8;
    format.coded_width = (unsigned)(parser->width + 15) / 16 * 16;
    format.coded_height = (unsigned)(parser->height + 15) / 16 * 16;
    format.display.right = parser->width;
    format.display.bottom = parser->height;
    parser->begun = 1;
    return parser->given.sequence(parser->given.user, &format);
}

// Units that begin with a message of user data (SEI of type 5) go to whoever asked, with their picture.
static void tell(Parser *parser, SourcePacket *packet, int surface) {
    static const unsigned char h264[] = {0, 0, 1, 6, 5}, hevc[] = {0, 0, 1, 0x4e, 1, 5};
    int is_h264 = parser->given.codec == 4;
    const unsigned char *start = is_h264 ? h264 : hevc;
    unsigned long length = is_h264 ? sizeof h264 : sizeof hevc;
    if (!parser->given.messages || (!is_h264 && parser->given.codec != 8)) return;
    Message found[8];
    unsigned char data[8 * 256];
    MessageInfo info = {data, found, 0, (unsigned)surface};
    unsigned long filled = 0;
    for (unsigned long at = 0; at + length < packet->size && info.count < 8; at++) {
        if (memcmp(packet->payload + at, start, length)) continue;
        unsigned size = packet->payload[at + length];
        if (size == 255 || at + length + 1 + size > packet->size) continue;  // longer ones are not ours
        found[info.count++] = (Message){.type = 5, .size = size};
        memcpy(data + filled, packet->payload + at + length + 1, size);
        filled += size;
    }
    if (info.count) parser->given.messages(parser->given.user, &info);
}

EXPORT Result cuvidParseVideoData(Parser *parser, SourcePacket *packet) {
    fake_log("parse size=%lu flags=%lu timestamp=%lld", packet->size, packet->flags, packet->timestamp);
    if (fake_sleep_us) usleep((unsigned)fake_sleep_us);
    if (packet->flags & PACKET_END_OF_STREAM) {
        show(parser, 0);
        parser->since_start = 0;
        return SUCCESS;
    }
    int number = parser->packets++;
    if (number == fake_error_at) return INVALID_VALUE;
    if (number == fake_resize_at) {
        show(parser, 0);
        parser->width = fake_new_width;
        parser->height = fake_new_height;
        parser->begun = 0;
    }
    if (!parser->begun && !begin_sequence(parser)) return INVALID_VALUE;
    sum_of_packet = 0;
    for (unsigned long at = 0; at < packet->size; at++) sum_of_packet += packet->payload[at];
    int surface = parser->pictures++ % SURFACES;
    tell(parser, packet, surface);
    int picture_parameters[2048] = {[2] = surface};
    if (!parser->given.decode(parser->given.user, picture_parameters)) return INVALID_VALUE;
    DisplayInfo info = {.picture = surface, .progressive = fake_progressive};
    int place = parser->waiting++;
    parser->timestamps[place] = packet->timestamp;
    int turn = parser->since_start++;
    if (fake_reorder && place > 0 && turn > 1 && turn % 2 == 0) {  // this one goes before the one held last
        parser->held[place] = parser->held[place - 1];
        place--;
    }
    parser->held[place] = info;
    show(parser, fake_reorder && turn % 2 == 1 ? fake_delay + 1 : fake_delay);
    return SUCCESS;
}

// ---- the decoder -------------------------------------------------------------------------------------------

typedef struct {
    int codec, chroma_format;
    unsigned bits_minus_8, reserved1[3];
    unsigned char supported, engines;
    unsigned short output_formats;
    unsigned max_width, max_height, max_blocks;
    unsigned short min_width, min_height;
} Caps;

EXPORT Result cuvidGetDecoderCaps(Caps *caps) {
    fake_log("caps codec=%d chroma=%d bits=%u", caps->codec, caps->chroma_format, caps->bits_minus_8 + 8);
    caps->supported = !fake_unsupported;
    caps->engines = 2;
    caps->output_formats = 3;
    caps->max_width = (unsigned)fake_max_width;
    caps->max_height = 4096;
    caps->max_blocks = 65536;
    caps->min_width = 48;
    caps->min_height = 16;
    return SUCCESS;
}

typedef struct {
    unsigned long width, height, surfaces;
    int codec, chroma_format;
    unsigned long flags, bits_minus_8, intra_only, max_width, max_height, reserved1;
    struct { short left, top, right, bottom; } display;
    int output_format, deinterlace;
    unsigned long target_width, target_height, output_surfaces;
} CreateInfo;

EXPORT Result cuvidCreateDecoder(Decoder **made, CreateInfo *info) {
    fake_log("create decoder %lux%lu target=%lux%lu max=%lux%lu surfaces=%lu bits=%lu deinterlace=%d", info->width,
             info->height, info->target_width, info->target_height, info->max_width, info->max_height, info->surfaces,
             info->bits_minus_8 + 8, info->deinterlace);
    if (fake_create_error) return fake_create_error;
    DevicePointer surfaces = 0;
    Result full = cuMemAlloc_v2(&surfaces, (info->surfaces + info->output_surfaces) * info->width * info->height * 3 / 2);
    if (full) return full;
    Decoder *decoder = calloc(1, sizeof *decoder);
    decoder->surfaces = surfaces;
    decoder->bits = (int)info->bits_minus_8 + 8;
    decoder->pitch = ((info->target_width << (decoder->bits > 8)) + 255) / 256 * 256;
    decoder->rows = info->target_height;
    decoder->mapped = malloc(decoder->pitch * (decoder->rows + (decoder->rows + 1) / 2));
    count(&fake_live_decoders, 1);
    *made = decoder;
    return SUCCESS;
}

EXPORT Result cuvidDestroyDecoder(Decoder *decoder) {
    fake_log("destroy decoder");
    count(&fake_live_decoders, -1);
    cuMemFree_v2(decoder->surfaces);
    free(decoder->mapped);
    free(decoder);
    return SUCCESS;
}

EXPORT Result cuvidReconfigureDecoder(Decoder *decoder, unsigned *sizes) {
    fake_log("reconfigure %ux%u target=%ux%u", sizes[0], sizes[1], sizes[2], sizes[3]);
    return SUCCESS;
}

EXPORT Result cuvidDecodePicture(Decoder *decoder, int *parameters) {
    fake_log("decode surface=%d", parameters[2]);
    decoder->sums[parameters[2]] = sum_of_packet;
    return SUCCESS;
}

EXPORT Result cuvidGetDecodeStatus(Decoder *decoder, int surface, int *status) {
    *status = 2;  // success
    return SUCCESS;
}

EXPORT Result cuvidMapVideoFrame64(Decoder *decoder, int surface, DevicePointer *pointer, unsigned *pitch, void *how) {
    fake_log("map surface=%d", surface);
    size_t luma = decoder->pitch * decoder->rows, chroma = decoder->pitch * ((decoder->rows + 1) / 2);
    if (decoder->bits == 8) {
        memset(decoder->mapped, decoder->sums[surface] & 255, luma);
    } else {
        uint16_t value = (uint16_t)((decoder->sums[surface] & 1023) << 6);
        for (size_t at = 0; at < luma / 2; at++) ((uint16_t *)decoder->mapped)[at] = value;
    }
    memset(decoder->mapped + luma, 128, chroma);
    count(&fake_live_maps, 1);
    *pointer = (DevicePointer)(uintptr_t)decoder->mapped;
    *pitch = (unsigned)decoder->pitch;
    return SUCCESS;
}

EXPORT Result cuvidUnmapVideoFrame64(Decoder *decoder, DevicePointer pointer) {
    count(&fake_live_maps, -1);
    return SUCCESS;
}

// ---- locks: there is nothing to lock -----------------------------------------------------------------------

EXPORT Result cuvidCtxLockCreate(void **made, void *context) { *made = (void *)0x99; return SUCCESS; }
EXPORT Result cuvidCtxLockDestroy(void *made) { return SUCCESS; }
EXPORT Result cuvidCtxLock(void *made, unsigned flags) { return SUCCESS; }
EXPORT Result cuvidCtxUnlock(void *made, unsigned flags) { return SUCCESS; }

// ---- looked up by the wheel, never called -------------------------------------------------------------------

#define NEVER_CALLED(name) EXPORT Result name(void) { abort(); }
NEVER_CALLED(cuvidCreateVideoSource)
NEVER_CALLED(cuvidCreateVideoSourceW)
NEVER_CALLED(cuvidDestroyVideoSource)
NEVER_CALLED(cuvidSetVideoSourceState)
NEVER_CALLED(cuvidGetVideoSourceState)
NEVER_CALLED(cuvidGetSourceVideoFormat)
NEVER_CALLED(cuvidGetSourceAudioFormat)
