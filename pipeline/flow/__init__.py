"""What is done with a picture, in the order in which it is done.

    source.py        Packet, Source           what arrives, in decode order
    clock.py         StreamClock              when in the stream it belongs
      ↓
    decode.py        Picture, Decoder         packets → pictures
    sample_rules.py  SamplingRules            how densely, as the config says it
    sample_order.py  Order                    what the decoder is told to do
    sample_ahead.py  Ahead                    what comes after this packet or picture
    sample.py        Sampler                  which packets are decoded, which pictures are kept
    rehearse.py      Rehearsal                which pictures will be kept of what is to come
    pick.py          pictures                 carries out what the sampler orders
    govern.py        Governor                 what is given up when there is too much to screen
    ring.py          PacketRing               the packets of the last seconds, to look at again
      ↓
    frames.py        Frame, FramePool         picture → a slot of the model's input tensor; a slot is a lease
    resize.py        convert                  what that conversion is, exactly: the judge of all backends
      ↓
    batch.py         Batch, Batcher           which slots go together, when
      ↓
    classify.py      Scores, Classifier       batch → one row of scores a frame
      ↓
    segment_rules.py SegmentRules, Segment    thresholds, and what is said of a segment
    span.py          Span                     what is known of a segment while it goes on
    segment.py       SegmentBuilder           scores → segments
    look.py          Lookout                  scores → which interval is worth a closer look
    coverage.py      CoverageLedger           scores and their absence → seconds screened, late, dropped, lost

Nothing here starts a thread, reads a clock or the environment, or imports a vendor: ``tests/test_layers.py``.
A file imports only the stages above it. ``backends/`` holds what implements the protocols.
"""
