"""Does a synthetic set, or its generator, give training subjects away?"""
