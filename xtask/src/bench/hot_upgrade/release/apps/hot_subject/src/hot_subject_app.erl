%% Starts the keepers first, so that who is answered at all is answered by one of them.
-module(hot_subject_app).
-behaviour(application).
-export([start/2, stop/1]).

start(_Type, _Args) ->
    {ok, Keepers} = application:get_env(hot_subject, keepers),
    hot_subject_sup:start_link(Keepers, list_to_integer(os:getenv("PORT"))).

stop(_State) ->
    ok.
