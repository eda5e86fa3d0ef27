"""Do synthetic images look like real ones of their subgroup?"""
