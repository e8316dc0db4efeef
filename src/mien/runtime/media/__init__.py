"""Pictures and videos in, videos out: sources, frames with their times, sound."""
