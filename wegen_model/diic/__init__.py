"""Dynamic Instance Identity Consistency: training samples from video, as WeGen's paper describes its own and did not release.

    videos -shots-> frames with motion between them -caption-> captions, noun phrases -ground-> boxes -track-> boxes in
    every frame -pair-> samples whose instances persist

Each arrow is a step that reads shards and writes shards. Steps, models and thresholds are this project's: the paper names none.
"""
