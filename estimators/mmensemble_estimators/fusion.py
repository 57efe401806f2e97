class ConcatFusion: pass
