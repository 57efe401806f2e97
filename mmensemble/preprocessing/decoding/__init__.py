"""Files → pixels, frames and samples."""
