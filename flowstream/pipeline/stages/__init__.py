"""The stages of a run, one file each, in the order a message meets them:

source (the producer's side), processor, batcher, batch processor, failure handler (policies), and
the acknowledger with its committer.
"""
