"""Where pictures and frames come from: sources, the video reader and writer, time stamps, sound and live feeds."""
