"""Cells that stand for files → pictures, frames and samples; what is made of these is for the preprocessors."""
