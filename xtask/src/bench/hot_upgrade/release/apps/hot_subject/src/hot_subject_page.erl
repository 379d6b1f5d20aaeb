%% What is answered: with the keepers what differs from version to version.
-module(hot_subject_page).
-export([version/0, counted/1]).

version() -> ?VERSION.

counted(Count) -> [?VERSION, " ", integer_to_list(Count), "\n"].
