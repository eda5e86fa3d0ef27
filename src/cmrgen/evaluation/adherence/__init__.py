"""Do synthetic images show the mask and the attributes they were asked for?"""
