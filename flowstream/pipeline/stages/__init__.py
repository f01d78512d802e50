"""The stages of a run, one file each, in the order a message meets them:

feed (the producer's side), processor, batcher, batch processor, disposal (failure policies), and
the acknowledger with its committer.
"""
