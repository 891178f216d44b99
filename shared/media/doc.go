// Package media is the bytes of recorded media: bundles, the fMP4 fragments in them, and
// what has to be known of Opus and H.264 to lay them out, to tell them from silence and
// to hear them. The bot writes with it, finalize and the portal read with it. FORMAT.md
// beside this file specifies the stored bytes.
//
// Media is stored as it was received, never transcoded. What is decoded here (peaks, the
// mix for listening) is derived, made when it is asked for or kept beside the original.
//
// The fMP4 layout is written by hand because it is the same few boxes for every
// fragment: a general muxer spends more time on them than the recorder on everything
// else, and four bytes more a sample.
package media
