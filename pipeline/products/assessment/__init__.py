"""Published class maps read again to assess them: samples of reference points, and class changes at edges.

Statistics of what is read belong to `pipeline.evaluation`.
"""
