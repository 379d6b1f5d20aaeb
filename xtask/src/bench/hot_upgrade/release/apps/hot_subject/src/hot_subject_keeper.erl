%% Keeps a count. Its state is a tuple in 0.1.0 and a map later, and no version can work with the other's.
-module(hot_subject_keeper).
-behaviour(gen_server).
-vsn(?VERSION).
-export([start_link/1, next/1, is_changed/1, init/1, handle_call/3, handle_cast/2, code_change/3]).

start_link(Number) ->
    gen_server:start_link(?MODULE, Number, []).

%% Both leave no frame of this module behind while they wait: old code that is still run by somebody is ended with him.
next(Number) ->
    gen_server:call(ets:lookup_element(hot_subject_keepers, Number, 2), next, 60000).

is_changed(Number) ->
    gen_server:call(ets:lookup_element(hot_subject_keepers, Number, 2), is_changed, 60000).

-ifdef(LATER).

init(Number) ->
    true = ets:insert(hot_subject_keepers, {Number, self()}),
    {ok, #{number => Number, count => 0, changed => false}}.

handle_call(next, _From, #{count := Count} = State) -> {reply, Count + 1, State#{count := Count + 1}};
handle_call(is_changed, _From, #{changed := Changed} = State) -> {reply, Changed, State}.

code_change({down, _}, #{number := Number, count := Count}, _Extra) ->
    {ok, {keeper, Number, Count}};
code_change(_From, {keeper, Number, Count}, _Extra) ->
    {ok, #{number => Number, count => Count, changed => true}}.

-else.

init(Number) ->
    true = ets:insert(hot_subject_keepers, {Number, self()}),
    {ok, {keeper, Number, 0}}.

handle_call(next, _From, {keeper, Number, Count}) -> {reply, Count + 1, {keeper, Number, Count + 1}};
handle_call(is_changed, _From, {keeper, _, _} = State) -> {reply, false, State}.

code_change(_From, State, _Extra) -> {ok, State}.

-endif.

handle_cast(_Message, State) -> {noreply, State}.
