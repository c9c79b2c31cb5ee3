"""What people and the miniature say: the templates of its conversations.

{a} {b}: things ("cat"); {an_a} {an_b}: with article ("a cat"); {on}: colour ("blue"); {an_on}: "a blue". Lower-case and short:
every token costs training time.
"""

TEXT = (
    "{an_a} on {an_on} background",
    "draw {an_a} on {on}",
    "{a}, {on} background",
    "{an_a} on {on}",
    "a picture of {an_a} on {on}",
    "{on} background, {an_a}",
)
TEXT_PLAIN = ("{an_a}", "a picture of {an_a}", "just {an_a}")  # no colour: white
PAIR = (
    "{an_a} on the left and {an_b} on the right, {on} background",
    "{an_a} to the left of {an_b} on {on}",
    "{an_b} to the right of {an_a} on {on}",
    "{an_a} and {an_b} on {an_on} background",
    "{a} left, {b} right, {on} background",
)
PAIR_PLAIN = ("{an_a} and {an_b}", "{an_a} to the left of {an_b}")
BOX = (
    "{an_a} <bbox_1> on {an_on} background",
    "draw {an_a} at <bbox_1>, {on} background",
    "{a} <bbox_1>, {on}",
    "{on} background with {an_a} <bbox_1>",
)
BOX_PLAIN = ("{an_a} <bbox_1>", "draw {an_a} at <bbox_1>")
BOXES = (
    "{an_a} <bbox_1> and {an_b} <bbox_2> on {an_on} background",
    "draw {an_a} at <bbox_1> and {an_b} at <bbox_2>, {on} background",
    "{a} <bbox_1>, {b} <bbox_2>, {on}",
    "{on} background with {an_a} <bbox_1> and {an_b} <bbox_2>",
)
BOXES_PLAIN = ("{an_a} <bbox_1> and {an_b} <bbox_2>", "draw {an_a} at <bbox_1> and {an_b} at <bbox_2>")
REFERENCE = (
    "<image_1><bbox_1> on {an_on} background",
    "the {a} <image_1><bbox_1> on {on}",
    "put <image_1> at <bbox_1>, {on} background",
    "<image_1><bbox_1>, {on}",
)
REFERENCE_PLAIN = ("<image_1><bbox_1>", "the {a} <image_1><bbox_1>")
REFERENCES = (
    "<image_1><bbox_1> and <image_2><bbox_2> on {an_on} background",
    "the {a} <image_1><bbox_1> and the {b} <image_2><bbox_2> on {on}",
    "put <image_1> at <bbox_1> and <image_2> at <bbox_2>, {on} background",
    "<image_1><bbox_1><image_2><bbox_2>, {on}",
    "<image_1><bbox_1> and {an_b} <bbox_2> on {an_on} background",  # one shown, one named
    "<image_1> on the left and <image_2> on the right, {on} background",  # no boxes: side by side
)
REFERENCES_PLAIN = ("<image_1><bbox_1> and <image_2><bbox_2>", "<image_1> and <image_2>")
SUBJECT = (
    "<image_1> on {an_on} background",
    "the {a} <image_1> on {on}",
    "<image_1> on {on}",
    "put <image_1> on {an_on} background",
)
NAME = ("<image_1> what is this?", "<image_1> what do you see?", "what is in <image_1>?")
CAPTION = ("<image_1> describe the picture", "<image_1> describe this", "describe <image_1>")
COLOUR = (
    "<image_1> what colour is the background?",
    "<image_1> which colour is behind it?",
    "what colour is the background of <image_1>?",
)
WHERE = ("<image_1> where is the {a}?", "where is the {a} in <image_1>?", "<image_1> find the {a}")
RECOLOUR = ("make the background {on}", "now on {on}", "change the background to {on}", "on {on} instead")
REPLACE = ("replace the {a} with {an_b}", "make it {an_b}", "swap the {a} for {an_b}", "{an_b} instead")
ADD_RIGHT = ("add {an_b} on the right", "put {an_b} to the right of the {a}", "{an_b} on the right too")
ADD_LEFT = ("add {an_b} on the left", "put {an_b} to the left of the {a}", "{an_b} on the left too")
REWRITE = ("{a}", "draw {an_a}", "{a} please", "i want {an_a}")  # none of them in TEXT_PLAIN
REWRITTEN = "{an_a} on {an_on} background"
